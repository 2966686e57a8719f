"""Images and their labels: where they come from, and in which parts they are used.

`datasets` loads a data set by its name; `sources` reads the public ones, `glyphs` draws
one, `folders` reads a reader's own, and `relabel` changes labels. `partition` cuts a
data set into parts, `batches` deals it out in batches.
"""
