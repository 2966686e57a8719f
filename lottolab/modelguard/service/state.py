"""What a service must not forget: its centroids, and what it was asked.

An SQLite database in write-ahead mode. A transaction is on the disk (`synchronous =
FULL`: fsync) before `keep` returns; one that a crash tore is dropped when the file is
opened again. One service at a time has it; `backup` may read beside it.
"""

import contextlib
import json
import os
import sqlite3
import time
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import filelock
import numpy as np
import torch
from torch import Tensor

from lottolab.checks import require
from lottolab.modelguard.defences.quantisers import ModelGuardS
from lottolab.modelguard.service.keys import NOBODY, Client

TABLES = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
BEGIN EXCLUSIVE;
CREATE TABLE IF NOT EXISTS about (text TEXT);
CREATE TABLE IF NOT EXISTS centroids (place INTEGER PRIMARY KEY, data, crc INTEGER);
CREATE TABLE IF NOT EXISTS admissions (place INTEGER PRIMARY KEY, data, crc INTEGER);
CREATE TABLE IF NOT EXISTS asked (key TEXT PRIMARY KEY, images INTEGER);
CREATE TABLE IF NOT EXISTS blanks (place INTEGER PRIMARY KEY, data, crc, tenant);
COMMIT;
"""
LATER = {  # columns that the first version's tables lack
    "centroids": ("tenant",),
    "admissions": ("time", "key", "address"),
}


class Admission(NamedTuple):
    """A request as it was answered: seconds since 1970, client, uint8 N×C×H×W."""

    time: float
    client: Client
    images: Tensor


class State:
    """Keep centroids, counts and admissions in a file.

    path: of the database, made where it is missing. about: JSON values that say whose
    state it is (defence, network …); a file of another is refused. log: whether `keep`
    notes what was admitted.

    Raises:
        ValueError: the file is no such database, or the state of another service.
        RuntimeError: another process has it, or it cannot be written.
    """

    def __init__(self, path: str | Path, about: dict, *, log: bool = False) -> None:
        self.path, self.log = Path(path), log
        self.durable: dict[str, int] = {}  # centroids of each tenant
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
        self._lock = filelock.FileLock(
            f"{path}.lock", timeout=0, mode=0o600, thread_local=False
        )
        try:
            path.stat()  # or the lock would make its folder
            self._lock.acquire()
            undo.callback(self._lock.release)
            # The thread that answers is another than the one that opens.
            self.database = sqlite3.connect(
                path, timeout=0, isolation_level=None, check_same_thread=False
            )
            undo.callback(self.database.close)
            self._tables()
            found = self.database.execute("SELECT text FROM about").fetchone()
            if found is None:
                text = json.dumps(about)
                self.database.execute("INSERT INTO about VALUES (?)", [text])
            known = about if found is None else json.loads(found[0])
        except (filelock.Timeout, OSError, sqlite3.OperationalError) as error:
            taken = isinstance(error, filelock.Timeout) or "locked" in str(error)
            used = "another service has it" if taken else error
            raise RuntimeError(f"{path} cannot be opened: {used}") from error
        except (sqlite3.DatabaseError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is no state of a service: {error}") from error
        if known != about:
            raise ValueError(
                f"{path} is the state of {found[0]}, not of {json.dumps(about)}: name "
                "another file by --state"
            )

    def _tables(self) -> None:
        self.database.executescript(TABLES)
        for table, columns in LATER.items():
            there = self.database.execute(f"PRAGMA table_info({table})").fetchall()
            for column in set(columns) - {row[1] for row in there}:
                self.database.execute(f"ALTER TABLE {table} ADD COLUMN {column}")

    def tenants(self) -> list[str]:
        """Return the names of those who have centroids."""
        found = self._read("SELECT DISTINCT coalesce(tenant, '') FROM centroids")
        return sorted(str(name) for (name,) in found)

    def restore(self, defence: ModelGuardS, tenant: str = "") -> None:
        """Open a tenant's centroids again in a fresh defence, in each class's order.

        Raises ValueError where the file is damaged.
        """
        classes, what = defence.centroids.num_classes, f"{self.path} is damaged"
        ask = "SELECT place, data, crc, tenant FROM centroids "
        ask += "WHERE coalesce(tenant, '') = ? ORDER BY place"
        kept = list(self._read(ask, tenant))
        for place, *row in kept:
            require(_whole(*row), what, f"row {place} of centroids")
        rows = [np.frombuffer(data, "<f4") for _, data, *_ in kept]
        require(
            all(len(row) == classes for row in rows), what, "rows of another length"
        )
        if rows:
            defence(torch.from_numpy(np.stack(rows)))
        self.durable[tenant] = defence.count
        require(defence.count == len(rows), what, "centroids within epsilon")

    def asked(self) -> dict[str, int]:
        """Return how many images were answered, by the name of a key."""
        return dict(self._read("SELECT key, images FROM asked"))

    def keep(self, defences: Mapping, admitted: list[tuple[Client, Tensor]]) -> None:
        """Have the disk hold new centroids, counts and, for the log, what was admitted.

        Whether it opened a centroid must not show in an answer's time. So each image
        costs a row of a centroid's size, and each call one wait for the disk.

        After an error nothing is kept, and the next call keeps all that is missing.

        Args:
            defences: by their tenants' names, "" where all share one.
            admitted: who asked, and the images, uint8 N×C×H×W.

        Raises:
            sqlite3.Error: the file cannot be written.
        """
        fresh, size = [], 0
        for tenant, defence in defences.items():
            if isinstance(defence, ModelGuardS):
                # They came as float32, so nothing is lost.
                first = self.durable.get(tenant, 0)
                values = defence.centroids.values[first : defence.count]
                fresh += [
                    (tenant, row.numpy().astype("<f4").tobytes()) for row in values
                ]
                size = 4 * defence.centroids.num_classes
        rows = [(data, _sum(data, tenant), tenant) for tenant, data in fresh]
        blanks = sum(len(images) for _, images in admitted) - len(fresh)
        blank = bytes(size), 0, ""
        with self.database as database:
            database.execute("BEGIN")
            into = "INSERT INTO centroids (data, crc, tenant) VALUES (?, ?, ?)"
            database.executemany(into, rows)
            into = "REPLACE INTO blanks VALUES (?, ?, ?, ?)"
            places = range(blanks) if size else ()
            database.executemany(into, [(place, *blank) for place in places])
            self._note(admitted)
        for tenant, _ in fresh:
            self.durable[tenant] = self.durable.get(tenant, 0) + 1

    def _note(self, admitted: list[tuple[Client, Tensor]]) -> None:
        into = (
            "INSERT INTO asked VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET images = "
            "images + excluded.images"
        )
        counts = [(client.key, len(images)) for client, images in admitted]
        self.database.executemany(into, counts)
        if self.log:
            into = (
                "INSERT INTO admissions (data, crc, time, key, address) "
                "VALUES (?, ?, ?, ?, ?)"
            )
            now, images = time.time(), [x.numpy().tobytes() for _, x in admitted]
            rows = [
                (data, zlib.crc32(data), now, *client)
                for data, (client, _) in zip(images, admitted, strict=True)
            ]
            self.database.executemany(into, rows)

    def admitted(self, shape: tuple[int, int, int]) -> Iterator[Admission]:
        """Yield each request as it was answered, in that order; shape: C×H×W."""
        what = f"{self.path} is damaged"
        ask = (
            "SELECT place, data, crc, time, key, address FROM admissions ORDER BY place"
        )
        for place, data, crc, at, *who in self._read(ask):
            require(_whole(data, crc, None), what, f"row {place} of admissions")
            images = torch.frombuffer(bytearray(data), dtype=torch.uint8)
            client = Client(*who) if at else NOBODY
            yield Admission(at or 0.0, client, images.view(-1, *shape))

    def close(self) -> None:
        """Give the file free."""
        self.database.close()
        self._lock.release()

    def _read(self, ask: str, *given: str) -> Iterator[tuple]:
        try:
            yield from self.database.execute(ask, given)
        except sqlite3.DatabaseError as error:
            raise ValueError(f"{self.path} is damaged: {error}") from error


def _sum(data: bytes, tenant: str | None) -> int:
    return zlib.crc32((tenant or "").encode(), zlib.crc32(data))


def _whole(data, crc, tenant) -> bool:
    named = tenant is None or isinstance(tenant, str)
    return isinstance(data, bytes) and named and _sum(data, tenant) == crc
