"""Copy a state whole: what a crash would keep is not in the named file alone.

Until SQLite's next checkpoint new centroids are in the file with `-wal` behind its
name, and whoever copies the named one loses them.
"""

import contextlib
import os
import sqlite3
from pathlib import Path


def backup(path: str | Path, copy: str | Path) -> None:
    """Write a whole copy of a state, also while a service has it; its owner's alone.

    Raises:
        FileNotFoundError: there is no state. FileExistsError: the copy is there.
        ValueError: it is no database, or damaged.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} is missing")
    if Path(copy).exists():
        raise FileExistsError(f"{copy} exists; name another file or remove it")
    part = Path(f"{copy}.part")
    part.unlink(missing_ok=True)
    os.close(os.open(part, os.O_CREAT | os.O_EXCL, 0o600))
    try:
        with (
            contextlib.closing(sqlite3.connect(path, timeout=10)) as old,
            contextlib.closing(sqlite3.connect(part)) as new,
        ):
            old.execute("SELECT text FROM about").fetchone()
            old.backup(new)
            new.execute("PRAGMA journal_mode = DELETE")  # all in the one file
        os.replace(part, copy)
    except sqlite3.DatabaseError as error:
        raise ValueError(f"{path} is no state of a service: {error}") from error
    finally:
        part.unlink(missing_ok=True)
