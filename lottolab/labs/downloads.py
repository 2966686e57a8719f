"""Put the student editions, where they have been built, into the book's pages."""

import shutil
from pathlib import Path

from lottolab.labs import build

MISSING = (
    "The student editions have not been built: run `make labs`, then render again.\n"
)


def place(labs: Path, book: Path) -> None:
    """Copy each lab's zip in `labs` to the static files of a copy of the book.

    They are listed in `book/labs/downloads.md`, which the teacher's page includes;
    without zips it says what to do. Nothing else is copied, solutions least of all.
    """
    zips = [p for lab in build.names() if (p := labs / f"{lab}.zip").is_file()]
    static, page = book / "_static" / "labs", book / "labs" / "downloads.md"
    page.parent.mkdir(parents=True, exist_ok=True)
    lines = []
    for path in zips:
        static.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, static / path.name)
        size = path.stat().st_size / 2**20
        link = f'<a href="../_static/labs/{path.name}" download>{path.name}</a>'
        lines.append(f"- {link}, {size:.1f} MB\n")
    page.write_text("".join(lines) or MISSING, encoding="utf-8")
