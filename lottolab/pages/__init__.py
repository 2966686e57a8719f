"""What a reader sees: a chapter's parameters, figures, tables, and the rendered book.

`parameters` reads what a chapter can be given. `show` has a chapter's tables and
verdicts, `plots` its look, `curves` a sweep's figure, `status` the page on what was
run. `render` makes the book of the notebooks, by `plain_sphinx` where it must.
"""
