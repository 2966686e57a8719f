"""Images and their labels: where they come from, and in which parts they are used.

`datasets` loads a `dataset` by name; `sources` reads the public ones, `glyphs` draws
one, `folders` reads a reader's own, and `relabel` changes labels. `archives` writes
tiny ones of noise in their true formats. `partition` cuts a data set into parts,
`batches` deals it out in batches.
"""
