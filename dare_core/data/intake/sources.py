"""Where the bytes of a log come from: a file, several, a folder or standard input, packed or not."""

import bz2
import gzip
import hashlib
import lzma
import shutil
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dare_core.errors import InputError
from dare_core.files import sha256_of, store_root, unwritable

STANDARD_INPUT = Path("-")
HEAD = 1 << 16
PACKINGS = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\x03\x04": "zip",
}
"""First bytes of a packed file; its name may say something else."""
DAMAGED = (
    *(zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError),
    *(NotImplementedError, RuntimeError, ValueError, OSError),
)
"""What unpacking raises: of a zip file NotImplementedError where its compression is unknown, RuntimeError where it is
encrypted."""
OTHERS = {
    b"\xd0\xcf\x11\xe0": "an Excel workbook (.xls): save its sheet as CSV",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive: unpack it and name the file",
    b"Rar!": "a RAR archive: unpack it and name the file",
    b"ARROW1": "an Arrow (Feather) file: write it as Parquet",
    b"ORC": "an ORC file: write it as Parquet or CSV",
    b"Obj\x01": "an Avro file: write it as Parquet or CSV",
    b"SQLite format 3": "an SQLite database: export the table as CSV",
    b"\x89HDF": "an HDF5 file: write its table as Parquet or CSV",
    b"\x93NUMPY": "a NumPy array without column names: write it as CSV or Parquet",
    b"\x80\x04": "a pickle, which can run code when read: write its table as Parquet or CSV",
    b"\x80\x05": "a pickle, which can run code when read: write its table as Parquet or CSV",
    b"%PDF": "a PDF document: the log itself is needed, as CSV or Parquet",
    b"\x89PNG": "a picture, not a readable text file: the log itself is needed, as CSV or Parquet",
    b"version https://git-lfs": "a Git LFS pointer, not the file itself: fetch it with `git lfs pull`",
}
"""First bytes of files that are not read, and what to say of them."""


@dataclass(frozen=True)
class Source:
    """One file of a log, unpacked."""

    name: str
    plain: Path
    packing: str = "none"

    def head(self) -> bytes:
        """Its first bytes."""
        with self.plain.open("rb") as file:
            return file.read(HEAD)


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield a temporary folder in the store: an unpacked log may be too large for the system's own."""
    try:
        store_root().mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(dir=store_root(), prefix=".writing-")
    except OSError as error:
        raise unwritable(error) from error
    with scratch as folder:
        yield Path(folder)


def printable(name: str | Path) -> str:
    """A file's name as text, whatever bytes it has."""
    return str(name).encode("utf-8", "replace").decode()


@contextmanager
def plain_file(path: Path) -> Iterator[Path]:
    """Yield the path of a plain file: `path` itself, or a temporary copy of the content of a packed one."""
    _check_file(path)
    with opened([path]) as sources:
        yield sources[0].plain


@contextmanager
def opened(paths: Sequence[Path]) -> Iterator[list[Source]]:
    """Yield the unpacked files of a log: those named, all files in a folder, or standard input, named `-`."""
    with scratch_folder() as folder:
        yield [
            _unpacked(path, printable(name), folder / f"plain-{at}")
            for at, (path, name) in enumerate(_files(paths, folder))
        ]


def sha256_of_all(paths: Sequence[Path], sources: Sequence[Source]) -> str:
    """SHA-256 of the only file as it lies there; of several, of their checksums; of standard input, of what came."""
    if len(paths) == 1 and paths[0].is_file():
        return sha256_of(paths[0])
    sums = [sha256_of(source.plain) for source in sources]
    return sums[0] if len(sums) == 1 else hashlib.sha256("".join(sums).encode()).hexdigest()


def _check_file(path: Path) -> None:
    if not path.exists():
        raise InputError(f"there is no file '{path}': check the path.")
    if path.is_dir():
        raise InputError(f"'{path}' is a folder: name the file in it.")
    if path.is_file() and path.stat().st_size == 0:
        raise InputError(f"'{path}' is empty: download or export it again.")


def _files(paths: Sequence[Path], folder: Path) -> list[tuple[Path, str]]:
    """The files that are meant, each with its name in messages; empty ones of a folder are passed over."""
    found: list[tuple[Path, str]] = []
    for path in paths:
        if path == STANDARD_INPUT or path.is_fifo():  # what comes can be read once only
            copy = folder / f"pipe-{len(found)}"
            with (
                copy.open("wb") as target,
                path.open("rb") if path.is_fifo() else nullcontext(sys.stdin.buffer) as pipe,
            ):
                shutil.copyfileobj(pipe, target, 1 << 20)
            name = str(path) if path.is_fifo() else "standard input"
            if copy.stat().st_size == 0:
                raise InputError(f"{name} is empty: check the command that writes it.")
            found.append((copy, name))
        elif path.is_dir():
            inside = [file for file in sorted(path.rglob("*")) if file.is_file() and not _hidden(file, path)]
            parts = [(file, str(file)) for file in inside if file.stat().st_size]
            if not parts:
                raise InputError(f"the folder '{path}' holds no file with content: name the folder of the log.")
            found += parts
        else:
            _check_file(path)
            found.append((path, str(path)))
    return found


def _hidden(file: Path, folder: Path) -> bool:
    """Files that programs leave beside a log, such as `_SUCCESS` and `.part.crc`."""
    return any(part.startswith((".", "_")) for part in file.relative_to(folder).parts)


def _unpacked(path: Path, name: str, target: Path) -> Source:
    """The file itself, or the copy of its content at `target`; refuses what is no log, by its first bytes."""
    with path.open("rb") as file:
        head = file.read(512)
    packing = next((packing for first, packing in PACKINGS.items() if head.startswith(first)), None)
    if packing is None:
        _check_kind(head, name)
        if printable(path) == str(path):
            return Source(name, path)
        target.symlink_to(path.resolve())  # Polars opens only names that are text
        return Source(name, target)
    try:
        with _stream(path, packing) as packed, target.open("wb") as plain:
            shutil.copyfileobj(packed, plain, 1 << 20)
    except InputError:
        raise
    except DAMAGED as e:
        raise InputError(f"'{name}' cannot be unpacked ({e}): download it again or unpack it yourself.") from e
    if target.stat().st_size == 0:
        raise InputError(f"'{name}' holds an empty file: download or export it again.")
    with target.open("rb") as file:
        _check_kind(file.read(512), name)
    return Source(name, target, packing)


def _check_kind(head: bytes, name: str) -> None:
    """Refuse files that are no log, and say what they are."""
    kind = next((kind for first, kind in OTHERS.items() if head.startswith(first)), None)
    if head[257:262] == b"ustar":
        kind = "a tar archive: unpack it and name the file"
    if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        kind = "a web page or XML, perhaps a page to log in: download the log itself, as CSV or Parquet"
    if kind is not None:
        raise InputError(f"'{name}' is {kind}.")


def _stream(path: Path, packing: str) -> Any:
    """The content of a packed file."""
    if packing == "zip":
        return _zip_member(path)
    if packing == "zstd":
        import pyarrow  # here: the other packings do not need it

        return pyarrow.input_stream(str(path), compression="zstd")
    return {"gzip": gzip, "bzip2": bz2, "xz": lzma}[packing].open(path)


@contextmanager
def _zip_member(path: Path) -> Iterator[Any]:
    """The only file of an archive."""
    with zipfile.ZipFile(path) as archive:
        if "[Content_Types].xml" in archive.namelist():
            raise InputError(f"'{path}' is an Excel workbook (.xlsx): save its sheet as CSV.")
        files = [
            member
            for member in archive.infolist()
            if not member.is_dir() and not member.filename.startswith("__MACOSX/")
        ]
        if len(files) != 1:
            names = ", ".join(member.filename[:60] for member in files[:5]) or "none"
            raise InputError(f"'{path}' holds {len(files)} files ({names}), wanted one: unpack it and name the file.")
        with archive.open(files[0]) as packed:
            yield packed
