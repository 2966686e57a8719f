"""Make small chapters, for tests that run a book of their own."""

from nbformat import NotebookNode, v4


def chapter(parameters: str, *cells: str | NotebookNode, title: str = ""):
    """Return a notebook: its title, the parameters cell, then code (or any) cells."""
    head = [v4.new_markdown_cell(title)] if title else []
    head.append(v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    rest = [v4.new_code_cell(c) if isinstance(c, str) else c for c in cells]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return v4.new_notebook(cells=head + rest, metadata={"kernelspec": kernel})
