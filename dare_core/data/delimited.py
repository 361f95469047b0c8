"""Text files of rows and fields: read fast where every row is sound, line by line where one is not, to say which."""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl
from tqdm import tqdm

from dare_core.errors import InputError

WHOLE_NUMBER = r"-?[0-9]{1,18}"
ROWS_PER_BATCH = 500_000
LONGEST_FIELD = 1 << 24
"""Characters of a field; the library's own limit of 131,072 refuses some texts."""
KEEP_ALL_FIELDS = pl.QueryOptFlags(projection_pushdown=False)
"""Polars counts the fields of a row only when it reads them all."""


def cut(value: object, quoted: bool = True) -> str:
    """A value as it is shown in messages: on one line, and not longer than a line takes.

    >>> cut("a" * 60, quoted=False)
    'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa…'
    """
    text = repr(value[:100] if isinstance(value, str | bytes) else value)
    text = text if quoted or not isinstance(value, str) else text[1:-1]
    return text if len(text) <= 40 else text[:39] + "…"


@dataclass
class Faults:
    """Rows that cannot be used: how many for each reason, and the first five places of each."""

    unit: str = "line"
    counts: Counter[str] = field(default_factory=Counter)
    places: dict[str, list[str]] = field(default_factory=dict)
    file: str = ""  # of several files, the one that is read at present

    def add(
        self, reason: str, places: Sequence[object], count: int | None = None, values: Sequence[object] | None = None
    ) -> None:
        """Note rows at `places` with their `values`; `count` is given where only their first places are known."""
        self.counts[reason] += len(places) if count is None else count
        known = self.places.setdefault(reason, [])
        for at, place in enumerate(places[: 5 - len(known)]):
            shown = f"{place}{f' of {self.file}' if self.file else ''}"
            known.append(shown if values is None else f"{shown}: {cut('' if values[at] is None else values[at])}")

    def sentence(self) -> str:
        """All reasons with their rows.

        >>> faults = Faults()
        >>> faults.add("no user", [7])
        >>> faults.add("unreadable time", [4, 9], values=["soon", None])
        >>> faults.sentence()
        "no user (1 row: line 7); unreadable time (2 rows: lines 4: 'soon', 9: '')"
        """
        return "; ".join(
            f"{reason} ({count:,} {'row' if count == 1 else 'rows'}: {self.unit}{'s' if count > 1 else ''} "
            f"{', '.join(self.places[reason])}{', …' if count > len(self.places[reason]) else ''})"
            for reason, count in self.counts.items()
        )


@dataclass(frozen=True)
class Layout:
    """The fields of a text file, and which of them are read."""

    fields: tuple[str, ...]  # every field of a row, in file order
    positions: dict[str, int]  # column of the log -> position of its field
    whole: frozenset[str] = frozenset()  # columns of the log that must be whole numbers
    separator: str = ","
    skip: int = 0  # lines before the first row: the header, and blank ones
    quoting: bool = True
    joined: bool = False  # quoted fields may hold what looks like whole rows

    def reading(self, positions: dict[str, int]) -> "Layout":
        """This layout with the positions of the columns that are read."""
        return replace(self, positions=positions)

    def frame(self, rows: list[tuple[str | int | None, ...]]) -> pl.DataFrame:
        """Rows of `line` and the columns of the log: whole numbers as Int64, everything else as text."""
        types = {"line": pl.Int64} | dict.fromkeys(self.positions, pl.String)
        return pl.DataFrame(rows, types, orient="row").cast(dict.fromkeys(self.whole, pl.Int64))


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


def text_rows(plain: Path, layout: Layout, faults: Faults, path: Path | str, sound: bool = True) -> pl.DataFrame:
    """All rows of a text file with the right number of fields; the others are noted in `faults`.

    `sound` is false where it is known that the fast way does not apply.
    """
    if sound:
        try:
            return pl.concat([layout.frame([]), *sound_batches(plain, layout)])
        except pl.exceptions.PolarsError:  # too few or too many fields, a blank line: the other way says where
            pass
    return pl.concat(list(checked_batches(plain, layout, faults, path)))


def sound_batches(plain: Path, layout: Layout) -> Iterator[pl.DataFrame]:
    """Batches of rows with the columns of `layout.frame`, of a file whose rows are all sound.

    Raises PolarsError where a row has too few or too many fields or a whole number is none. Progress is shown on a
    terminal, in bytes of the file: every row is taken to be as long as the first ones.
    """
    names = [str(at) for at in range(len(layout.fields))]  # by position: names may repeat
    whole = {str(layout.positions[column]) for column in layout.whole}
    columns = [pl.col(str(at)).alias(column) for column, at in layout.positions.items()]
    rows = pl.scan_csv(
        plain, has_header=False, skip_lines=layout.skip, separator=layout.separator, glob=False,
        quote_char='"' if layout.quoting else None,
        schema={name: pl.Int64() if name in whole else pl.String() for name in names},
        row_index_name="line", row_index_offset=layout.skip + 1,
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


def checked_batches(plain: Path, layout: Layout, faults: Faults, path: Path | str) -> Iterator[pl.DataFrame]:
    """The sound rows of any file in batches as of `sound_batches`; the others are noted in `faults`.

    `line` is where a row ends in the file. Blank lines are no rows. A Python loop per row, some ten times slower than
    `sound_batches`. Raises InputError where the file is no text, a quote stays open, or whole rows lie in quotes.
    """
    whole = {layout.positions[column]: column for column in layout.positions if column in layout.whole}
    all_whole = re.compile(",".join([WHOLE_NUMBER] * len(whole)))  # one match per row: twice as fast as one per field
    csv.field_size_limit(LONGEST_FIELD)
    line = layout.skip
    try:
        with (
            plain.open("rb") as raw,
            io.TextIOWrapper(raw, encoding="utf-8-sig", newline="") as source,
            tqdm(total=plain.stat().st_size, unit="B", unit_scale=True, desc="checking", disable=None) as progress,
        ):
            for _ in islice(source, layout.skip):
                pass
            quoting: Any = csv.QUOTE_MINIMAL if layout.quoting else csv.QUOTE_NONE
            reader = csv.reader(source, delimiter=layout.separator, quoting=quoting, strict=True)
            rows: list[tuple[str | int | None, ...]] = []
            for row in reader:
                before, line = line, layout.skip + reader.line_num
                if line - before > 1 and not layout.joined:
                    _check_span(row, layout, before + 1, line, path)
                if not row:
                    continue
                if len(row) != len(layout.fields):
                    faults.add(f"wrong number of fields, {len(layout.fields)} wanted", [f"{line} with {len(row)}"])
                elif all_whole.fullmatch(",".join([row[at] for at in whole])):
                    rows.append((line, *(row[at] or None for at in layout.positions.values())))
                else:
                    wrong = next(at for at in whole if not re.fullmatch(WHOLE_NUMBER, row[at]))
                    faults.add(f"{whole[wrong]} is not a whole number", [line], values=[row[wrong]])
                if len(rows) == ROWS_PER_BATCH:
                    progress.update(raw.tell() - progress.n)
                    yield layout.frame(rows)
                    rows = []
            yield layout.frame(rows)
    except UnicodeDecodeError as e:
        raise InputError(f"'{path}' is not a readable text file ({e}): export it as UTF-8 CSV.") from e
    except csv.Error as e:
        raise InputError(
            f"'{path}' cannot be split into fields after line {line} ({e}): look for a quote that is not closed or "
            "comes after a backslash; a table that does not quote its fields is read with --no-quotes."
        ) from e


def _check_span(row: Sequence[str], layout: Layout, first: int, last: int, path: Path | str) -> None:
    """Refuse a quoted field that has swallowed rows: lines within it, or its first and last, are whole rows."""
    between = len(layout.fields) - 1
    for at, value in enumerate(row):
        parts = re.split(r"\r\n|\n|\r", value)
        ends = parts[0].count(layout.separator) + at == between == parts[-1].count(layout.separator) + len(row) - 1 - at
        inside = any(part.count(layout.separator) == between for part in parts[1:-1])
        if len(parts) > 1 and (inside or (ends and at == between)):
            raise InputError(
                f"'{path}': a quoted field reaches from line {first} to line {last} and holds whole rows: "
                "if the file does not quote its fields, read it with --no-quotes; if they are meant, with --quotes."
            )


def json_rows(plain: Path, wanted: dict[str, str], faults: Faults, path: Path | str) -> pl.DataFrame:
    """The rows of JSON lines as text, with the columns `line` and `wanted` (column of the log -> name of the field)."""
    names, rows = Counter[str](), []
    try:
        with plain.open(encoding="utf-8-sig") as source:
            for number, line in enumerate(source, 1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError):
                    row = None
                if not isinstance(row, dict):
                    faults.add("no JSON object", [number], values=[line.strip()])
                    continue
                names.update(row.keys())
                rows.append((number, *(_json_text(row.get(name)) for name in wanted.values())))
    except UnicodeDecodeError as e:
        raise InputError(f"'{path}' is not a readable text file ({e}): write it as UTF-8.") from e
    for name in wanted.values():
        if name not in names:
            known = ", ".join(cut(name) for name, _ in names.most_common(20))
            raise InputError(f"'{path}' has no field '{cut(name, False)}': its fields are {known or 'none'}.")
    return pl.DataFrame(rows, {"line": pl.Int64} | dict.fromkeys(wanted, pl.String), orient="row")


def _json_text(value: Any) -> str | None:
    """A value as CSV would hold it."""
    if value is None or isinstance(value, str):
        return (value or "").encode("utf-8", "replace").decode() or None  # half of a surrogate pair is no text
    return json.dumps(value)
