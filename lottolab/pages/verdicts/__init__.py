"""What became of the claims, and where that comes from.

`headlines` are those of a poster, `cards` all of them in a `catalogue`, a table whose
rows unfold, with their `origins`. `status` is the page on what was run, `machines` what
another CPU found.
"""
