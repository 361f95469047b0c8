"""What every reader of raw logs shares: its result, the rows that it could not use, and the order of rows."""

import difflib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numba
import numpy as np
import polars as pl

from dare_core.errors import InputError

OnBadRows = Literal["refuse", "skip"]
SMALL_LOOKUP = 1 << 20  # an array of so many ids costs nothing


@dataclass
class Faults:
    """Rows that cannot be used: how many for each reason, and the first five places."""

    unit: str = "line"
    counts: Counter[str] = field(default_factory=Counter)
    places: dict[str, list[int]] = field(default_factory=dict)

    def add(self, reason: str, places: list[int], count: int | None = None) -> None:
        """Note rows at `places`; `count` is given when only their first places are known."""
        self.counts[reason] += len(places) if count is None else count
        known = self.places.setdefault(reason, [])
        known.extend(places[: 5 - len(known)])

    def sentence(self) -> str:
        """For example: wrong number of fields (2 rows: lines 4, 9); no user (1 row: line 7)."""
        return "; ".join(
            f"{reason} ({count:,} {'row' if count == 1 else 'rows'}: {self.unit}{'s' if count > 1 else ''} "
            f"{', '.join(map(str, self.places[reason]))}{', …' if count > len(self.places[reason]) else ''})"
            for reason, count in self.counts.items()
        )


@dataclass(frozen=True)
class Reading:
    """What a reader returns: the rows, and what the data card says about them."""

    frame: pl.DataFrame
    facts: dict[str, Any]  # title, kind, source, terms, provenance of the card
    rows_read: int
    sha256: str  # of the source file
    faults: Faults = field(default_factory=Faults)
    filters: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)  # what else belongs to the card's `created_with`


def number(column: pl.Series) -> pl.Series:
    """Ids 1, 2, … in order of first appearance, Int32.

    Whole numbers are looked up in an array where they lie close enough together for it to be no larger than
    the result; anything else is matched by hashing.
    """
    if column.dtype in (pl.Int32, pl.Int64) and len(column) and not column.null_count():
        low, high = int(column.min()), int(column.max())  # type: ignore[arg-type]
        if high - low < max(len(column), SMALL_LOOKUP):
            return _looked_up(column, low, high)
    frame = column.alias("id").to_frame()
    order = frame.unique(maintain_order=True).with_row_index("number", offset=1)
    numbered = frame.join(order, on="id", how="left", maintain_order="left", nulls_equal=True)
    return numbered["number"].cast(pl.Int32).alias(column.name)


def _looked_up(column: pl.Series, low: int, high: int) -> pl.Series:
    """`number` of whole numbers from `low` to `high`, chunk by chunk."""
    known, out = np.zeros(high - low + 1, np.int32), np.empty(len(column), np.int32)
    count = at = 0
    for chunk in column.get_chunks():
        count = _number_chunk(chunk.to_numpy(), low, known, count, out[at : at + len(chunk)])
        at += len(chunk)
    return pl.Series(column.name, out)


@numba.njit(cache=True)
def _number_chunk(ids: np.ndarray, low: int, known: np.ndarray, count: int, out: np.ndarray) -> int:
    """Number one chunk after `count` different ids; `known` holds the number of id `low` + index, 0 where new."""
    for row in range(len(ids)):
        at = ids[row] - low
        if known[at] == 0:
            count += 1
            known[at] = count
        out[row] = known[at]
    return count


def settle(faults: Faults, rows: int, on_bad_rows: OnBadRows, path: Path) -> None:
    """Refuse bad rows, unless they are to be skipped and others are left."""
    bad = faults.counts.total()
    if bad and on_bad_rows == "refuse":
        raise InputError(
            f"'{path}': {bad:,} of {rows:,} rows cannot be used: {faults.sentence()}: "
            "mend them or leave them out with --on-bad-rows skip."
        )
    if bad == rows:
        detail = f"every row is bad: {faults.sentence()}" if bad else "there is no row in it"
        raise InputError(f"'{path}' has nothing to read, {detail}: check that it is the right file and reader.")


def check_values(counts: Mapping[Any, int], wanted: Sequence[Any], path: Path) -> None:
    """Refuse a wanted behaviour that no row has; `counts` says how many rows have which value."""
    for value in wanted:
        if value not in counts:
            known = sorted(counts, key=lambda known: -counts[known])[:10]
            listed = ", ".join(f"{known_value!r} ({counts[known_value]:,} rows)" for known_value in known)
            raise InputError(f"'{path}' has no row with behaviour {value!r}: its values are {listed or 'none'}.")


def field_position(name: str, fields: Sequence[str], path: Path) -> int:
    """Position of a named field; where there is none, the error lists the fields and the nearest."""
    if fields.count(name) == 1:
        return fields.index(name)
    if name in fields:
        raise InputError(f"'{path}' has {fields.count(name)} columns named '{name}': give them different names.")
    near = difflib.get_close_matches(name.lower(), [known.lower() for known in fields], 1, 0.5)
    hint = next((f" (nearest: '{known}')" for known in fields if known.lower() in near), "")
    raise InputError(f"'{path}' has no column '{name}'{hint}: its columns are {', '.join(map(repr, fields))}.")


def contiguous(frame: pl.DataFrame, by_time: bool = False) -> pl.DataFrame:
    """Rows grouped by user in order of first appearance, within a user as they come or by time (stable)."""
    if not by_time and frame["user"].rle().struct.field("value").is_unique().all():
        return frame
    by = ["order", "time"] if by_time else ["order"]
    return frame.with_columns(order=number(frame["user"])).sort(by, maintain_order=True).drop("order")


def one_value(value: str) -> pl.Expr:
    """A constant behaviour, one byte a row."""
    return pl.lit(value, dtype=pl.Enum([value]))
