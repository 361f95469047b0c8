"""Text files of rows and fields: read fast where every row is sound, line by line where one is not, to say which."""

import csv
import gzip
import io
import re
import shutil
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl
from tqdm import tqdm

from dare_core.errors import InputError
from dare_core.files import store_root

WHOLE_NUMBER = r"-?[0-9]{1,18}"
ROWS_PER_BATCH = 500_000
KEEP_ALL_FIELDS = pl.QueryOptFlags(projection_pushdown=False)
"""Polars counts the fields of a row only when it reads them all."""


@dataclass
class Faults:
    """Rows that cannot be used: how many for each reason, and the first five places of each."""

    unit: str = "line"
    counts: Counter[str] = field(default_factory=Counter)
    places: dict[str, list[int]] = field(default_factory=dict)

    def add(self, reason: str, places: list[int], count: int | None = None) -> None:
        """Note rows at `places`; `count` is given where only their first places are known."""
        self.counts[reason] += len(places) if count is None else count
        known = self.places.setdefault(reason, [])
        known.extend(places[: 5 - len(known)])

    def sentence(self) -> str:
        """All reasons with their rows.

        >>> faults = Faults()
        >>> faults.add("no user", [7])
        >>> faults.add("unreadable time", [4, 9])
        >>> faults.sentence()
        'no user (1 row: line 7); unreadable time (2 rows: lines 4, 9)'
        """
        return "; ".join(
            f"{reason} ({count:,} {'row' if count == 1 else 'rows'}: {self.unit}{'s' if count > 1 else ''} "
            f"{', '.join(map(str, self.places[reason]))}{', …' if count > len(self.places[reason]) else ''})"
            for reason, count in self.counts.items()
        )


@dataclass(frozen=True)
class Layout:
    """The fields of a text file, and which of them are read."""

    fields: tuple[str, ...]  # every field of a row, in file order
    positions: dict[str, int]  # column of the log -> position of its field
    whole: frozenset[str] = frozenset()  # columns of the log that must be whole numbers
    separator: str = ","
    header: bool = True

    def frame(self, rows: list[tuple[str | int | None, ...]]) -> pl.DataFrame:
        """Rows of `line` and the columns of the log: whole numbers as Int64, everything else as text."""
        types = {"line": pl.Int64} | dict.fromkeys(self.positions, pl.String)
        return pl.DataFrame(rows, types, orient="row").cast(dict.fromkeys(self.whole, pl.Int64))


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield a temporary folder in the store: an unpacked log may be too large for the system's own."""
    store_root().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=store_root(), prefix=".writing-") as folder:
        yield Path(folder)


@contextmanager
def plain_file(path: Path) -> Iterator[Path]:
    """Yield the path of a plain file: `path` itself, or a temporary copy of the content of a .zip or .gz file."""
    if not path.exists():
        raise InputError(f"there is no file '{path}': check the path.")
    if path.is_dir():
        raise InputError(f"'{path}' is a folder: name the file in it.")
    if path.stat().st_size == 0:
        raise InputError(f"'{path}' is empty: download or export it again.")
    if path.suffix.lower() not in (".zip", ".gz"):
        yield path
        return
    damaged = (zipfile.BadZipFile, gzip.BadGzipFile, EOFError, zlib.error, NotImplementedError, RuntimeError)
    with scratch_folder() as folder:
        plain = folder / "plain"
        try:
            if path.suffix.lower() == ".gz":
                with gzip.open(path) as packed, plain.open("wb") as target:
                    shutil.copyfileobj(packed, target, 1 << 20)
            else:
                _unzip(path, plain)
        except damaged as e:
            raise InputError(f"'{path}' cannot be unpacked ({e}): download it again or unpack it yourself.") from e
        if plain.stat().st_size == 0:
            raise InputError(f"'{path}' holds an empty file: download or export it again.")
        yield plain


def _unzip(path: Path, target: Path) -> None:
    """Unpack the only file of an archive."""
    with zipfile.ZipFile(path) as archive:
        files = [
            member
            for member in archive.infolist()
            if not member.is_dir() and not member.filename.startswith("__MACOSX/")
        ]
        if len(files) != 1:
            names = ", ".join(member.filename for member in files[:5]) or "none"
            raise InputError(f"'{path}' holds {len(files)} files ({names}), wanted one: unpack it and name the file.")
        with archive.open(files[0]) as packed, target.open("wb") as file:
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


def sound_batches(plain: Path, layout: Layout) -> Iterator[pl.DataFrame]:
    """Batches of rows with the columns of `layout.frame`, of a file whose rows are all sound.

    Raises PolarsError where a row has too few or too many fields or a whole number is none. Progress is shown on a
    terminal, in bytes of the file: every row is taken to be as long as the first ones.
    """
    first = 1 + int(layout.header)
    names = [str(at) for at in range(len(layout.fields))]  # by position: names may repeat
    whole = {str(layout.positions[column]) for column in layout.whole}
    columns = [pl.col(str(at)).alias(column) for column, at in layout.positions.items()]
    rows = pl.scan_csv(
        plain, has_header=False, skip_rows=first - 1, separator=layout.separator, glob=False,
        schema={name: pl.Int64() if name in whole else pl.String() for name in names},
        row_index_name="line", row_index_offset=first,
    ).select(pl.col("line").cast(pl.Int64), *columns, complete=pl.col(names[-1]).is_not_null())  # fmt: skip
    with plain.open("rb") as file:
        head = file.read(1 << 16)
    size, bytes_per_row = plain.stat().st_size, len(head) / max(head.count(b"\n"), 1)
    with tqdm(total=size, unit="B", unit_scale=True, desc="reading", disable=None) as progress:
        for batch in rows.collect_batches(
            chunk_size=ROWS_PER_BATCH, maintain_order=True, optimizations=KEEP_ALL_FIELDS
        ):
            if not batch["complete"].all() or any(batch[column].null_count() for column in layout.whole):
                raise pl.exceptions.ComputeError("a field is missing")
            yield batch.drop("complete")
            progress.update(min(round(batch.height * bytes_per_row), size - progress.n))
        progress.update(size - progress.n)


def checked_batches(plain: Path, layout: Layout, faults: Faults, path: Path) -> Iterator[pl.DataFrame]:
    """The sound rows of any file in batches as of `sound_batches`; the others are noted in `faults`.

    `line` is where a row ends in the file. Blank lines are no rows. A Python loop per row, some ten times slower than
    `sound_batches`. Raises InputError where the file is no text or a quote stays open.
    """
    whole = {layout.positions[column]: column for column in layout.positions if column in layout.whole}
    all_whole = re.compile(",".join([WHOLE_NUMBER] * len(whole)))  # one match per row: twice as fast as one per field
    try:
        with (
            plain.open("rb") as raw,
            io.TextIOWrapper(raw, encoding="utf-8-sig", newline="") as source,
            tqdm(total=plain.stat().st_size, unit="B", unit_scale=True, desc="checking", disable=None) as progress,
        ):
            reader = csv.reader(source, delimiter=layout.separator, strict=True)
            if layout.header:
                next(reader, None)
            rows: list[tuple[str | int | None, ...]] = []
            for row in filter(None, reader):
                if len(row) != len(layout.fields):
                    faults.add(f"wrong number of fields, {len(layout.fields)} wanted", [reader.line_num])
                elif all_whole.fullmatch(",".join([row[at] for at in whole])):
                    rows.append((reader.line_num, *(row[at] or None for at in layout.positions.values())))
                else:
                    wrong = next(column for at, column in whole.items() if not re.fullmatch(WHOLE_NUMBER, row[at]))
                    faults.add(f"{wrong} is not a whole number", [reader.line_num])
                if len(rows) == ROWS_PER_BATCH:
                    progress.update(raw.tell() - progress.n)
                    yield layout.frame(rows)
                    rows = []
            yield layout.frame(rows)
    except UnicodeDecodeError as e:
        raise InputError(f"'{path}' is not a readable text file ({e}): export it as UTF-8 CSV.") from e
    except csv.Error as e:
        raise InputError(
            f"'{path}' cannot be split into fields after line {reader.line_num} ({e}): "
            "look for a quote that is not closed."
        ) from e
