"""What a reader of a raw log returns, which of its rows are refused, and how ids are numbered."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from dare_core.config import Strict
from dare_core.data.delimited import Faults, cut
from dare_core.data.intake.times import READABLE, Times, moment
from dare_core.errors import InputError

OnBadRows = Literal["refuse", "skip"]
SMALL_LOOKUP = 1 << 20  # an array of so many ids costs nothing


class NoOptions(Strict):
    """A reader without options."""


class PeriodOptions(Strict):
    """Which period of a log is read: since <= time < until, each a date or a number in the log's unit."""

    since: str | None = None
    until: str | None = None


@dataclass(frozen=True)
class Reading:
    """What a reader returns: the rows, and what the data card says about them.

    Rows are contiguous by user and oldest first.
    """

    frame: pl.DataFrame  # user, item, category: ids of the source; behaviour; time: Int64, null without any
    facts: dict[str, Any]  # title, kind, source, terms, provenance of the card
    rows_read: int
    sha256: str  # of the source file
    faults: Faults = field(default_factory=Faults)
    filters: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)  # what else belongs to the card's `created_with`
    found: dict[str, Any] = field(default_factory=dict)
    checks: dict[str, Any] = field(default_factory=dict)
    item_category: np.ndarray | None = None  # (items + 1,) where ids of items and categories are numbers already
    item_group: np.ndarray | None = None  # (items + 1,)
    shown: np.ndarray | None = None  # (rows, 4)


def settle(faults: Faults, rows: int, on_bad_rows: OnBadRows, path: Path | str) -> None:
    """Refuse bad rows, unless they are to be skipped and others are left."""
    bad = faults.counts.total()
    forms = f"; {READABLE}" if any(reason.startswith("unreadable time") for reason in faults.counts) else ""
    if bad and on_bad_rows == "refuse":
        advice = (
            "most rows of the file, so look at the columns that are named and at their form"
            if 2 * bad > rows
            else "mend them or leave them out with --on-bad-rows skip"
        )
        raise InputError(f"'{path}': {bad:,} of {rows:,} rows cannot be used: {faults.sentence()}{forms}: {advice}.")
    if bad == rows:
        detail = f"every row is bad: {faults.sentence()}{forms}" if bad else "there is no row in it"
        raise InputError(f"'{path}' has nothing to read, {detail}: check that it is the right file and reader.")


def check_values(counts: Mapping[Any, int], wanted: Sequence[Any], path: Path | str) -> None:
    """Refuse a wanted behaviour that no row has; `counts` says how many rows have which value."""
    for value in wanted:
        if value not in counts:
            known = sorted(counts, key=lambda known: -counts[known])[:10]
            listed = ", ".join(f"{cut(known_value)} ({counts[known_value]:,} rows)" for known_value in known)
            raise InputError(f"'{path}' has no row with behaviour {cut(value)}: its values are {listed or 'none'}.")


def plain_types(frame: pl.DataFrame, wanted: Mapping[str, str], name: str) -> pl.DataFrame:
    """Columns whose values are single ones; text of every kind as text."""
    for column, kind in frame.schema.items():
        if kind.is_nested() or isinstance(kind, pl.Object):
            raise InputError(f"'{name}': column '{cut(wanted[column], False)}' holds lists or records, not ids.")
        if isinstance(kind, pl.Categorical | pl.Enum | pl.Binary | pl.Null | pl.Boolean | pl.Time | pl.Duration):
            frame = frame.with_columns(pl.col(column).cast(pl.String, strict=False))
    return frame


def within_period(frame: pl.DataFrame, times: Times | None, options: PeriodOptions) -> tuple[pl.DataFrame, list[str]]:
    """The rows of the period that is asked for; their `time` is the key of `times`."""
    if options.since is None and options.until is None:
        return frame, []
    if times is None:
        raise InputError("--since and --until need --time, the column with the time.")
    kept = pl.lit(True)
    if options.since is not None:
        kept &= pl.col("time") >= moment(options.since, times, "--since")
    if options.until is not None:
        kept &= pl.col("time") < moment(options.until, times, "--until")
    rest = frame.filter(kept)
    period = " ".join(
        f"{word} {limit}" for word, limit in (("since", options.since), ("until before", options.until)) if limit
    )
    if rest.is_empty():
        raise InputError(f"no row has a time {period}: see the card of the log for its first and last time.")
    return rest, [f"Kept the {rest.height:,} of {frame.height:,} rows with a time {period}."]


def number(column: pl.Series) -> pl.Series:
    """Ids 1, 2, … in order of first appearance, Int32.

    Whole numbers are looked up in an array where they lie close enough together for it to be no larger than
    the result; anything else is matched by hashing.

    >>> number(pl.Series("item", ["b", "a", "b"])).to_list()
    [1, 2, 1]
    """
    if column.dtype in (pl.Int32, pl.Int64) and len(column) and not column.null_count():
        low, high = int(column.min()), int(column.max())  # type: ignore[arg-type]
        if high - low < max(len(column), SMALL_LOOKUP):
            return _looked_up(column, low, high)
    return numbered(column)[0]


def numbered(column: pl.Series) -> tuple[pl.Series, pl.Series]:
    """`number`, and the ids in order of their numbers."""
    frame = column.alias("id").to_frame()
    order = frame.unique(maintain_order=True).with_row_index("number", offset=1)
    joined = frame.join(order, on="id", how="left", maintain_order="left", nulls_equal=True)
    return joined["number"].cast(pl.Int32).alias(column.name), order["id"]


def _looked_up(column: pl.Series, low: int, high: int) -> pl.Series:
    """`number` of whole numbers from `low` to `high`, chunk by chunk."""
    chunks = [chunk.to_numpy() for chunk in column.get_chunks()]
    first, stop = np.full(high - low + 1, len(column), np.int32), len(column)  # row in which an id appears first
    for chunk in reversed(chunks):
        stop -= len(chunk)
        first[chunk[::-1] - low] = np.arange(stop, stop + len(chunk))[::-1]  # of repeated ids the last assignment stays
    known = np.flatnonzero(first < len(column))
    numbers = np.empty(len(first), np.int32)
    numbers[known[np.argsort(first[known])]] = np.arange(1, len(known) + 1)
    return pl.concat([pl.Series(column.name, numbers[chunk - low]) for chunk in chunks])
