"""What a reader sees: a chapter's parameters, figures, tables, and the rendered book.

`parameters` reads what a chapter can be given. `show` has a chapter's tables and
verdicts, `plots` its look, `curves` a sweep's figure, `moving` those that a reader
moves, `status` the page on what was run. `cards` are the claims in a `catalogue`, a
table whose rows unfold, with their `origins`. `render` makes the book of the notebooks,
by `plain_sphinx` where it must, and `printed` one PDF of it, by a `browser` that is
there. `prose` finds the numbers in sentences that no output of their page contains.
"""
