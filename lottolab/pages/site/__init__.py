"""The book made of the notebooks, as pages and as a PDF.

`render` builds it, with the Sphinx extensions `folds` and `citations` and by
`plain_sphinx` where it must; `printed` makes one PDF, by a `browser` that is there.
"""
