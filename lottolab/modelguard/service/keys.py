"""Who may ask a service: API keys, of which only SHA-256 hashes are kept.

A line a key: its name, the hash of its text, and, where there is one, a quota of
images. A key is 32 random bytes, which nobody guesses, so that a plain hash hides it.
"""

import hashlib
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from lottolab.checks import require, whole

VARIABLE = "LOTTOLAB_KEYS"  # lines as in a file; a semicolon ends one, too
NAME = r"[A-Za-z0-9][\w.-]{0,47}"
LINE = re.compile(rf"({NAME})\s+([0-9a-f]{{64}})(?:\s+([0-9]+))?", re.ASCII)


class Client(NamedTuple):
    """Who asks: the name of his key, "" without one, and his address."""

    key: str
    address: str

    @property
    def who(self) -> str:
        """Whose turn it is: a key's, or an address's that has none."""
        return f"key {self.key}" if self.key else self.address


NOBODY = Client("", "")


class Keys:
    """Keys by their hashes.

    quotas: images that a key may ask for, by its name, where it is bounded.

    Raises:
        ValueError: a line is none of a key, or a name or a hash is there twice.
    """

    def __init__(self, text: str, source: str) -> None:
        self._names: dict[str, str] = {}
        self.quotas: dict[str, int] = {}
        for number, line in enumerate(re.split(r"[\n;]", text), 1):
            line = line.partition("#")[0].strip()
            found = LINE.fullmatch(line)
            what = (
                f"{source} must hold a name, a SHA-256 hash and perhaps a quota a line"
            )
            require(not line or bool(found), what, f"another line {number}")
            if found:
                name, digest, quota = found.groups()
                new = digest not in self._names and name not in self._names.values()
                require(new, f"{source} must name each key once", name)
                self._names[digest] = name
                if quota:
                    self.quotas[name] = int(quota)
        what = f"{source} must hold a key (see lottolab modelguard key)"
        require(bool(self._names), what, "none")

    def name(self, text: str) -> str | None:
        """Return the name of the key with this text; None where there is none."""
        return self._names.get(_hash(text))


def read(path: Path | None, environment: Mapping[str, str] = os.environ) -> Keys | None:
    """Read the keys of a file, or else of the environment; None without either.

    Raises:
        FileNotFoundError: there is no such file. ValueError: it does not hold keys.
    """
    if path is not None:
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing")
        return Keys(path.read_text(encoding="utf-8", errors="replace"), str(path))
    text = environment.get(VARIABLE)
    return None if text is None else Keys(text, VARIABLE)


def add(path: Path, name: str, quota: int | None = None) -> str:
    """Add a new key's name and hash to a file, and return its text, kept nowhere.

    Raises ValueError for a name that is there, or none, or a quota below 1.
    """
    right = re.fullmatch(NAME, name, re.ASCII)
    what = "a key's name must be 1 to 48 letters, digits, '_', '-' and '.'"
    require(bool(right), what, repr(name))
    if quota is not None:
        whole("quota", quota, 1)
    text = secrets.token_urlsafe(32)
    line = f"{name} {_hash(text)}{'' if quota is None else f' {quota}'}\n"
    known = path.read_text(encoding="utf-8") if path.exists() else ""
    Keys(known + line, str(path))
    with open(
        os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600), "a"
    ) as file:
        file.write(line)
    return text


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
