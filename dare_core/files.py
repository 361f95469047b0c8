"""Where results live, and how files are written: whole or not at all."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock

from dare_core.errors import InputError

HELD = ("logs", "runs", "language", "book")
"""Folders of a store: a folder named `store` without one of them is another program's."""


def project_root() -> Path:
    """The folder that holds `book/` and `notebooks/`: the package's parent, in a clone."""
    return Path(__file__).resolve().parent.parent


def store_root() -> Path:
    """Folder of prepared logs, runs and built books: `DARE_STORE`, or `store` in a folder of the project.

    That folder is the nearest one, upwards from the working folder, that has a store or is the project's root; the
    working folder itself where there is none.
    """
    place = os.environ.get("DARE_STORE")
    if place is not None:
        if not place.strip():
            raise InputError("DARE_STORE is set, but empty: let it name the folder of the store, or unset it.")
        return Path(place).expanduser().resolve()
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if _has_store(folder)), here) / "store"


def _has_store(folder: Path) -> bool:
    if any((folder / "store" / part).is_dir() for part in HELD):
        return True
    try:
        return 'name = "dare_core"' in (folder / "pyproject.toml").read_text("utf-8")
    except (OSError, ValueError):
        return False


def unwritable(error: OSError) -> InputError:
    """What to say where the store cannot be written."""
    return InputError(
        f"the store '{store_root()}' cannot be written ({error.strerror or error}): name another one in DARE_STORE."
    )


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let one process or thread at a time work at `path`, which lies in the store.

    The lock is a file in `.locks` that the system releases when its process ends, however it ends; it may stay.
    """
    lock = store_root() / ".locks" / path.parent.name / f"{path.name}.lock"
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        held = FileLock(lock)
        held.acquire()
    except OSError as error:
        raise unwritable(error) from error
    try:
        yield
    finally:
        held.release()


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it replaces `path`, on failure nothing is left.

    The temporary keeps the suffix of `path`, because some writers choose their format by it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".writing-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path, replace: bool = False) -> Iterator[Path]:
    """Yield a temporary folder; on success it becomes `path`.

    When another process finished the same folder first, that one is kept: both hold the same content. With `replace`
    the older folder goes instead, between two renames; whoever reads at that moment waits at the lock of `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=".writing-"))
    try:
        yield temporary
        temporary.chmod(0o755)
        older = temporary.with_name(f"{temporary.name}-older")
        if replace and path.is_dir():
            path.rename(older)
        try:
            temporary.rename(path)
        except OSError:
            if not path.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(temporary.with_name(f"{temporary.name}-older"), ignore_errors=True)


def remove_folder(path: Path) -> None:
    """Remove a folder; nothing where there is none, because another process removed it first.

    It is renamed first, so that no other process finds half of it. Raises OSError where it may not be removed.
    """
    if not path.is_dir():
        return
    doomed = Path(tempfile.mkdtemp(dir=path.parent, prefix=".removing-"))
    try:
        with suppress(FileNotFoundError):
            path.rename(doomed)
    finally:
        shutil.rmtree(doomed)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically. NaN is refused: a reader elsewhere could not parse it."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n", "utf-8")


def canonical_json(value: Any) -> str:
    """One text for one value: sorted keys, no spaces. The base of every content hash."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def sha256_alongside(path: Path) -> Iterator[Callable[[], str]]:
    """Yield a function that gives the SHA-256 of a file, which a thread computes while the caller works."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(sha256_of, path).result


def short_hash(text: str) -> str:
    """First 16 hexadecimal digits of the SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
