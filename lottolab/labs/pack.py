"""Pack a lab or a chapter into one zip that stands alone: it says what it needs.

A lab needs no `lottolab`: its zip holds the student edition, its data, and the lines of
`pyproject.toml` for what its cells import. A chapter's zip is a small clone: the
notebook, its scales, claims, results and images, and the package as source.
"""

import textwrap
import zipfile
from collections.abc import Iterable
from pathlib import Path

import nbformat

from lottolab.checks import one_of
from lottolab.labs import needs
from lottolab.pages import parameters
from lottolab.truth.claims_file import CHAPTERS
from lottolab.units import duration

README = """\
{title}

You need Python 3.11 or newer, {disk} of disk and, after the installation, no network
and no GPU. {torch}In the folder of this file:

    python3 -m venv venv
    . venv/bin/activate              (Windows: venv\\Scripts\\activate)
    pip install -r requirements.txt
    jupyter lab {notebook}

{more}"""
LAB = """\
Work in the cells that say YOUR CODE HERE, and replace the line that raises
NotImplementedError, too. The cell after each of them checks your work; "Restart Kernel
and Run All Cells" in the menu Run checks all of it up to the first that fails. Hand in
{name}.ipynb and nothing else. What you have installed serves every lab that needs no more
than this one; its own requirements.txt adds what is missing.
"""
CHAPTER = """\
The page shows what was measured. Its cells compute it anew, at laptop scale in about
{took} of computing, half of that on two cores; what is done is kept. Less, in a minute or two:

    lottolab run {name} --scale smoke

Links to the book's other pages lead nowhere here.
"""
# Measured with torch 2.14.1 for Windows and macOS, 2.13.0+cpu for Linux: see teaching.md.
TORCH = """\
Of that, torch takes 0.6 GB on Windows and macOS, {here}, 0.8 GB where its CPU edition is \
installed first, by the command on torch's own page. """
# What a chapter imports beyond what all do.
EXTRAS = {"modelguard": ["service"]}
ALWAYS = ["LICENSE", "README.md", "_toc.yml", "pyproject.toml"]
