"""What a reader sees: a chapter's parameters, figures, tables, and the rendered book.

`parameters` reads what a chapter can be given. `show` has a chapter's tables, `plots`
its look, `curves` a sweep's figure, `pictures` how images are kept small, `moving` the
figures that a reader moves, `standing` which tables are read. `verdicts` has what
became of the claims, `site` the book that is made of the notebooks. `prose` finds the
numbers in sentences that no output of their page contains.
"""
