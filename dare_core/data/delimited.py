"""Text files of rows and fields: read fast when they are sound, read line by line to name what is not."""

import csv
import gzip
import io
import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from tqdm import tqdm

from dare_core.data.reading import Faults
from dare_core.errors import InputError
from dare_core.files import store_root

WHOLE_NUMBER = r"-?[0-9]{1,18}"
KEEP_ALL_FIELDS = pl.QueryOptFlags(projection_pushdown=False)
"""Polars counts the fields of a row only when it reads them all."""


@dataclass(frozen=True)
class Layout:
    """The fields of a text file, and which of them are read."""

    fields: tuple[str, ...]  # every field of a row, in file order
    positions: dict[str, int]  # column of the log -> position of its field
    whole: frozenset[str] = frozenset()  # columns of the log that must be whole numbers
    separator: str = ","
    header: bool = True


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield a temporary folder beside the results: an unpacked log may be too large for the system's own."""
    store_root().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=store_root(), prefix=".writing-") as folder:
        yield Path(folder)


@contextmanager
def plain_file(path: Path) -> Iterator[Path]:
    """Yield the path of a plain file: `path` itself, or a temporary copy of what a .zip or .gz holds."""
    if not path.exists():
        raise InputError(f"there is no file '{path}': check the path.")
    if path.is_dir():
        raise InputError(f"'{path}' is a folder: name the file in it.")
    if path.stat().st_size == 0:
        raise InputError(f"'{path}' is empty: download or export it again.")
    if path.suffix.lower() not in (".zip", ".gz"):
        yield path
        return
    with scratch_folder() as folder:
        plain = folder / "plain"
        try:
            if path.suffix.lower() == ".gz":
                with gzip.open(path) as packed, plain.open("wb") as target:
                    shutil.copyfileobj(packed, target, 1 << 20)
            else:
                _unzip(path, plain)
        except (
            zipfile.BadZipFile,
            gzip.BadGzipFile,
            EOFError,
            zlib.error,
            NotImplementedError,
            RuntimeError,
        ) as e:
            raise InputError(f"'{path}' cannot be unpacked ({e}): download it again or unpack it yourself.") from e
        if plain.stat().st_size == 0:
            raise InputError(f"'{path}' holds an empty file: download or export it again.")
        yield plain


def _unzip(path: Path, target: Path) -> None:
    """Unpack the only file of an archive."""
    with zipfile.ZipFile(path) as archive:
        members = [
            member
            for member in archive.infolist()
            if not member.is_dir() and not member.filename.startswith("__MACOSX/")
        ]
        if len(members) != 1:
            names = ", ".join(member.filename for member in members[:5]) or "none"
            raise InputError(f"'{path}' holds {len(members)} files ({names}), wanted one: unpack it and name the file.")
        with archive.open(members[0]) as packed, target.open("wb") as file:
            shutil.copyfileobj(packed, file, 1 << 20)


def read_header(plain: Path, path: Path) -> tuple[tuple[str, ...], str]:
    """Field names of the first line, and the separator: the most frequent of comma, tab and semicolon."""
    try:
        with plain.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            separator = max(",\t;", key=first.count)
            file.seek(0)
            return tuple(name.strip() for name in next(csv.reader(file, delimiter=separator))), separator
    except (UnicodeDecodeError, csv.Error, StopIteration) as e:
        raise InputError(f"'{path}' is not a readable text file ({e}): export it as UTF-8 CSV.") from e


def bytes_a_row(plain: Path) -> float:
    """Mean length of the first rows of a file, for showing progress."""
    with plain.open("rb") as file:
        head = file.read(1 << 16)
    return len(head) / max(head.count(b"\n"), 1)


def scan_rows(plain: Path, layout: Layout) -> pl.LazyFrame:
    """The columns of the log as Int64 (whole numbers) or text, with `line` and `complete` (last field given).

    Collect it with `KEEP_ALL_FIELDS`. Polars raises where a row has too many fields or a number is none.
    """
    first = 1 + int(layout.header)
    rows = pl.scan_csv(
        plain, has_header=False, skip_rows=first - 1, schema=_types(layout), separator=layout.separator,
        row_index_name="line", row_index_offset=first, glob=False,
    )  # fmt: skip
    return _named(rows, layout)


def mend_rows(plain: Path, layout: Layout, faults: Faults, copy: Path, path: Path) -> pl.LazyFrame:
    """Like `scan_rows`, for a file that is not sound: sound rows go to `copy`, the others into `faults`.

    Blank lines are no rows. Slow (a Python loop per row), and so only for files that the fast way refuses.
    """
    count = len(layout.fields)
    whole = {layout.positions[column]: column for column in layout.positions if column in layout.whole}
    all_whole = re.compile(",".join([WHOLE_NUMBER] * len(whole)))  # one match a row: twice as fast as one each
    try:
        with (
            plain.open("rb") as raw,
            io.TextIOWrapper(raw, encoding="utf-8-sig", newline="") as source,
            copy.open("w", newline="", encoding="utf-8") as out,
            tqdm(total=plain.stat().st_size, unit="B", unit_scale=True, desc="checking", disable=None) as progress,
        ):
            reader = csv.reader(source, delimiter=layout.separator, strict=True)
            writer = csv.writer(out)
            if layout.header:
                next(reader, None)
            for row in reader:
                if reader.line_num % 100_000 == 0:
                    progress.update(raw.tell() - progress.n)
                if not row:
                    continue
                if len(row) != count:
                    faults.add(f"wrong number of fields, {count} wanted", [reader.line_num])
                elif all_whole.fullmatch(",".join([row[at] for at in whole])):
                    writer.writerow([*row, reader.line_num])
                else:
                    wrong = next(column for at, column in whole.items() if not re.fullmatch(WHOLE_NUMBER, row[at]))
                    faults.add(f"{wrong} is not a whole number", [reader.line_num])
    except UnicodeDecodeError as e:
        raise InputError(f"'{path}' is not a readable text file ({e}): export it as UTF-8 CSV.") from e
    except csv.Error as e:
        raise InputError(
            f"'{path}' cannot be split into fields after line {reader.line_num} ({e}): "
            "look for a quote that is not closed."
        ) from e
    schema = _types(layout) | {"line": pl.Int64()}
    return _named(pl.scan_csv(copy, has_header=False, schema=schema, raise_if_empty=False, glob=False), layout)


def _types(layout: Layout) -> dict[str, pl.DataType]:
    """Polars types of the fields, named by position: names may repeat."""
    whole = {layout.positions[column] for column in layout.whole}
    return {str(at): pl.Int64() if at in whole else pl.String() for at in range(len(layout.fields))}


def _named(rows: pl.LazyFrame, layout: Layout) -> pl.LazyFrame:
    last = pl.col(str(len(layout.fields) - 1))
    columns = [pl.col(str(at)).alias(column) for column, at in layout.positions.items()]
    return rows.select(pl.col("line").cast(pl.Int64), *columns, complete=last.is_not_null())
