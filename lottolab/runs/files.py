"""Write files that appear complete or not at all, in the right mode."""

import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FULL = re.compile(
    "No space left|[Dd]is[ck] quota exceeded|not enough space on the disk"
)


class DiskFull(OSError):
    """There is no room for what was to be written."""


@contextmanager
def room(path: str | Path) -> Iterator[None]:
    """Say which disk is full, and what to do, where the block finds no room at `path`.

    Raises:
        DiskFull: instead of an OSError or RuntimeError that says so in its own words.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        if isinstance(error, DiskFull) or not FULL.search(str(error)):
            raise
        folders = Path(os.path.abspath(path)).parents
        folder = next(folder for folder in folders if folder.is_dir())
        free = shutil.disk_usage(folder).free / 2**20
        raise DiskFull(
            f"the disk of {folder} is full ({free:,.0f} MB are free): make room there, "
            "or name a folder on another disk (the store's by LOTTOLAB_STORE), and run "
            "the same command again: what is finished is kept"
        ) from error


@contextmanager
def replacing(path: str | Path, *, secret: bool = False) -> Iterator[Path]:
    """Yield an empty file beside `path`, which takes its place if the block ends well.

    Args:
        secret: it can be read by its owner alone, from its first byte on; otherwise by
            whom the umask lets.

    Raises:
        DiskFull: there is no room; the older file is as it was.
    """
    path = os.path.realpath(path)  # of a link, what it leads to
    new = Path(f"{path}.new")
    new.unlink(missing_ok=True)
    try:
        with room(path):
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
            os.close(os.open(new, flags, 0o600 if secret else 0o666))
            mode = stat.S_IMODE(new.stat().st_mode)
            yield new
            if stat.S_IMODE(new.stat().st_mode) != mode:
                new.chmod(mode)  # safetensors 0.8 makes a file of its own, of mode 600
            os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)


def tensors(
    state: dict[str, Any], path: str | Path, texts: dict[str, str] | None = None
) -> None:
    """Write torch's tensors as a safetensors file; `texts` go into its header.

    Tensors that share memory, as tied weights do, are each written whole.

    Raises:
        OSError: it cannot be written; the older file is as it was.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    # Cloned, because safetensors refuses tensors that share memory.
    state = {k: t.detach().cpu().clone().contiguous() for k, t in state.items()}
    with replacing(path) as new:
        try:
            save_file(state, new, metadata=texts)
        except SafetensorError as error:
            raise OSError(f"{path} cannot be written: {error}") from error


def swap(new: Path, place: Path, old: Path) -> None:
    """Move the folder `new` to `place`; what stood there goes to `old`."""
    if place.exists():
        place.rename(old)
    try:
        new.rename(place)
    except OSError:
        if old.exists():
            old.rename(place)
        raise
