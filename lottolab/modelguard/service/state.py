"""What a service must not forget: its centroids, and what it was asked.

An SQLite database in write-ahead mode. A transaction is on the disk (`synchronous =
FULL`: fsync) before `keep` returns; one that a crash tore is dropped when the file is
opened again. One process at a time has it.
"""

import contextlib
import json
import os
import sqlite3
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lottolab.checks import require
from lottolab.modelguard.defences.quantisers import ModelGuardS

TABLES = """
PRAGMA locking_mode = EXCLUSIVE;
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
BEGIN EXCLUSIVE;
CREATE TABLE IF NOT EXISTS about (text TEXT);
CREATE TABLE IF NOT EXISTS centroids (place INTEGER PRIMARY KEY, data, crc INTEGER);
CREATE TABLE IF NOT EXISTS admissions (place INTEGER PRIMARY KEY, data, crc INTEGER);
COMMIT;
"""


class State:
    """Keep centroids and admissions in a file.

    path: of the database, made where it is missing. about: JSON values that say whose
    state it is (defence, network …); a file of another is refused. log: whether `keep`
    notes what was admitted.

    Raises:
        ValueError: the file is no such database, or the state of another service.
        RuntimeError: another process has it, or it cannot be written.
    """

    def __init__(self, path: str | Path, about: dict, *, log: bool = False) -> None:
        self.path, self.log, self.durable = Path(path), log, 0
        # Its owner's alone, and so is what SQLite puts beside it. Never one that is
        # there: to close it would end the locks that this process may have on it.
        with contextlib.suppress(OSError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o600))
        with contextlib.ExitStack() as undo:
            self._open(about, undo)
            undo.pop_all()
        os.chmod(path, 0o600)  # of before, when it was as the umask says

    def _open(self, about: dict, undo: contextlib.ExitStack) -> None:
        path = self.path
        try:
            # The thread that answers is another than the one that opens.
            self.database = sqlite3.connect(
                path, timeout=0, isolation_level=None, check_same_thread=False
            )
            undo.callback(self.close)
            self.database.executescript(TABLES)
            found = self.database.execute("SELECT text FROM about").fetchone()
            if found is None:
                text = json.dumps(about)
                self.database.execute("INSERT INTO about VALUES (?)", [text])
            known = about if found is None else json.loads(found[0])
        except sqlite3.OperationalError as error:
            used = "another service has it" if "locked" in str(error) else error
            raise RuntimeError(f"{path} cannot be opened: {used}") from error
        except (sqlite3.DatabaseError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is no state of a service: {error}") from error
        if known != about:
            raise ValueError(
                f"{path} is the state of {found[0]}, not of {json.dumps(about)}: name "
                "another file by --state"
            )

    def restore(self, defence: ModelGuardS) -> None:
        """Open the kept centroids again in a fresh defence, in each class's order.

        Raises ValueError where the file is damaged.
        """
        classes, what = defence.centroids.num_classes, f"{self.path} is damaged"
        rows = [np.frombuffer(data, "<f4") for data in self._rows("centroids")]
        require(
            all(len(row) == classes for row in rows), what, "rows of another length"
        )
        if rows:
            defence(torch.from_numpy(np.stack(rows)))
        self.durable = defence.count
        require(self.durable == len(rows), what, "centroids within epsilon")

    def keep(self, defence, admitted: list[Tensor]) -> None:
        """Have the disk hold the new centroids and, for the log, what was admitted.

        After an error nothing is kept, and the next call keeps all that is missing.

        Raises:
            sqlite3.Error: the file cannot be written.
        """
        fresh = []
        if isinstance(defence, ModelGuardS):
            # They came as float32, so nothing is lost.
            values = defence.centroids.values[self.durable : defence.count]
            fresh = [row.numpy().astype("<f4").tobytes() for row in values]
        images = [x.numpy().tobytes() for x in admitted] if self.log else []
        if not fresh and not images:
            return
        with self.database:
            self.database.execute("BEGIN")
            for place, data in enumerate(fresh, self.durable):
                row = [place, data, zlib.crc32(data)]
                self.database.execute("INSERT INTO centroids VALUES (?, ?, ?)", row)
            for data in images:
                row = [data, zlib.crc32(data)]
                self.database.execute(
                    "INSERT INTO admissions (data, crc) VALUES (?, ?)", row
                )
        self.durable += len(fresh)

    def admitted(self, shape: tuple[int, int, int]) -> Iterator[Tensor]:
        """Yield the images of each request, uint8 N×C×H×W, as they were answered."""
        for data in self._rows("admissions"):
            yield torch.frombuffer(bytearray(data), dtype=torch.uint8).view(-1, *shape)

    def close(self) -> None:
        """Give the file free."""
        self.database.close()

    def _rows(self, table: str) -> Iterator[bytes]:
        try:
            found = self.database.execute(f"SELECT * FROM {table} ORDER BY place")
            for place, data, crc in found:
                right = isinstance(data, bytes) and zlib.crc32(data) == crc
                require(right, f"{self.path} is damaged", f"row {place} of {table}")
                yield data
        except sqlite3.DatabaseError as error:
            raise ValueError(f"{self.path} is damaged: {error}") from error
