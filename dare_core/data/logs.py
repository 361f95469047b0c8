"""Interaction logs: one schema for every source, stored as Parquet with a data card, read into arrays."""

import difflib
import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import polars as pl

from dare_core.data.intake.rows import OnBadRows, number
from dare_core.data.log_files import Card, Log, log_folder, read_card, read_log_files, store_log
from dare_core.data.readers import read_log
from dare_core.errors import InputError
from dare_core.files import locked, remove_folder, store_root

COMPLETE_JOURNEY = "complete_journey"  # its package is a dependency: this log needs no preparation by the user
BUILT_IN = ("generated", "independent", "no_decay", "no_semantics", "demonstration")
"""Names that studies generate a log for."""
SHORTEST_USER = 4
"""Clicks that samples need of a user: one before the first of three targets."""
T = TypeVar("T")


def prepare(
    reader: str,
    path: Path | str | Sequence[Path | str] | None = None,
    *,
    name: str,
    on_bad_rows: OnBadRows = "refuse",
    built_in: bool = False,
    **options: Any,
) -> Log:
    """Read a raw log, renumber its ids from 1 in order of appearance, and store it as `name`.

    `reader` is one of `READERS`; `path` is a file, for `table` also several, a folder or `-`; `options` are the
    reader's own. A log that is stored under the same name is replaced; of two preparations at once the second waits,
    and each returns its own log. `built_in` allows the names of the project's own logs. Raises InputError for input
    that cannot be used.
    """
    folder = log_folder(name)  # refuse a bad name before the work
    if (name == COMPLETE_JOURNEY) != (reader == COMPLETE_JOURNEY):
        raise InputError(f"the name '{COMPLETE_JOURNEY}' belongs to the reader of that name: choose another --name.")
    if not built_in and (name in BUILT_IN or name.startswith("generated-")):
        raise InputError(f"the name '{name}' belongs to a log that the project generates: choose another --name.")
    built = _read(reader, path, name, on_bad_rows, options)
    with locked(folder):
        return store_log(*built, overwrite=True)


def _read(
    reader: str,
    path: Path | str | Sequence[Path | str] | None,
    name: str,
    on_bad_rows: OnBadRows,
    options: dict[str, Any],
) -> tuple[Card, pl.DataFrame, np.ndarray, None, np.ndarray | None, np.ndarray | None]:
    """What `store_log` stores of a raw log, ids renumbered."""
    paths = [] if path is None else [path] if isinstance(path, Path | str) else path
    reading = read_log(reader, [Path(path) for path in paths], on_bad_rows, options)
    frame, reading = reading.frame, replace(reading, frame=pl.DataFrame())  # a raw id goes when it is numbered
    frame = frame.with_columns((pl.col("user").rle_id() + 1).cast(pl.Int32))  # users are contiguous: their runs
    if reading.item_category is None:
        for column in ("item", "category"):
            frame = frame.with_columns(number(frame[column]))
        item_category = _latest_category(frame)
    else:
        item_category = reading.item_category
    bad = reading.faults.counts.total()
    filters = [f"Left out {bad:,} bad row{'s' if bad > 1 else ''}: {reading.faults.sentence()}."] if bad else []
    card = Card(
        name=name,
        **reading.facts,
        sha256=reading.sha256,
        rows_read=reading.rows_read,
        rows_kept=frame.height,
        users=int(frame["user"].to_numpy()[-1]),
        items=len(item_category) - 1,
        categories=int(max(item_category.max(), frame["category"].to_numpy().max())),
        filters=filters + reading.filters,
        bad_rows=bad,
        created_with={"reader": reader, "on_bad_rows": on_bad_rows, **options, **reading.details},
        found=reading.found,
        checks=reading.checks,
    )
    return card, frame, item_category, None, reading.item_group, reading.shown


def _latest_category(frame: pl.DataFrame) -> np.ndarray:
    """Category of each item's last row, by time where there is one, else as stored; int32 (items + 1,)."""
    item, category = frame["item"].to_numpy(), frame["category"].to_numpy()
    latest = np.zeros(item.max() + 1, np.int32)
    latest[item] = category  # of repeated indices the last assignment stays
    changed = np.unique(item[latest[item] != category])
    if len(changed) and frame["time"].null_count() == 0:
        rows = np.flatnonzero(np.isin(item, changed))
        rows = rows[np.argsort(frame["time"].to_numpy()[rows], kind="stable")]
        latest[item[rows]] = category[rows]
    return latest


def load(name: str) -> Log:
    """A stored log, checked against its card. Complete Journey is prepared the first time that it is loaded.

    Raises InputError where there is no log of that name (the message lists those there are), or where its files were
    changed.
    """
    log = find(name)
    if log is not None:
        return log
    if name == COMPLETE_JOURNEY:
        return store_log(*_read(COMPLETE_JOURNEY, None, name, "refuse", {}))
    known = [card.name for card in available()]
    near = difflib.get_close_matches(name, known, 1)
    raise InputError(
        f"there is no log '{name}'{f' (nearest: {near[0]})' if near else ''}: there are "
        f"{', '.join(sorted({*known, COMPLETE_JOURNEY}))}; "
        f"prepare it with `dare data prepare READER FILE --name {name}`."
    )


def find(name: str) -> Log | None:
    """A stored log, or None where there is none of that name."""
    return _find(name, read_log_files)


def load_times(log: Log) -> np.ndarray | None:
    """Times of a stored log's rows, int64 (rows,), None where it has none.

    Raises InputError where another log has been stored under its name since it was read.
    """

    def read(folder: Path, card: Card) -> pl.Series:
        if card.fingerprint != log.fingerprint:
            raise ValueError("another log has been stored under its name since it was read")
        return pl.read_parquet(folder / "log.parquet", columns=["time"], glob=False)["time"]

    times = _find(log.card.name, read)
    return None if times is None or times.null_count() else times.cast(pl.Int64).to_numpy()


def _find(name: str, read: Callable[[Path, Card], T]) -> T | None:
    """What `read` makes of a stored log's folder and card, None where there is none of that name.

    Where nothing sound is found, the log may be about to be replaced: it is looked at again when that is done.
    """
    folder = log_folder(name)
    with suppress(OSError, ValueError, pl.exceptions.PolarsError):
        return read(folder, read_card(folder))
    if not folder.parent.is_dir():
        return None
    try:
        with locked(folder) if os.access(store_root(), os.W_OK) else nullcontext():
            return read(folder, read_card(folder)) if folder.exists() else None
    except (OSError, ValueError, pl.exceptions.PolarsError) as e:
        raise InputError(
            f"the stored log '{name}' is damaged ({str(e).splitlines()[0]}): remove it with "
            f"`dare data remove {name}` and prepare it again."
        ) from e


def available() -> list[Card]:
    """Cards of all stored logs, by name."""
    cards = []
    try:
        for path in sorted((store_root() / "logs").glob("[!.]*/card.json")):
            with suppress(FileNotFoundError):  # it was removed meanwhile
                cards.append(read_card(path.parent))
        return cards
    except ValueError as e:
        raise InputError(f"a data card in the store cannot be read ({str(e).splitlines()[0]}): remove its log.") from e


def remove(name: str) -> None:
    """Delete a stored log."""
    if not log_folder(name).exists():
        raise InputError(f"there is no log '{name}' to remove: see `dare data list`.")
    with locked(log_folder(name)):
        remove_folder(log_folder(name))


def lengths(log: Log) -> np.ndarray:
    """Clicks of each user, int64 (users,)."""
    return np.diff(log.offsets)


def shortest_user_error(log: Log, minimum: int) -> InputError:
    """The error for a log in which no user has `minimum` clicks: how many users have how many, and settings that fit.

    The settings keep the longest quarter of users, or ten, as far as these have the 4 clicks that samples need.
    """
    clicks = np.sort(lengths(log))[::-1]
    reached = [f"{(clicks >= least).sum():,} have >= {least}" for least in (20, 60, 110, 210) if least < minimum]
    enough = clicks[clicks >= SHORTEST_USER]
    advice = f"samples need users of {SHORTEST_USER} clicks, so nothing can be learned from it"
    if len(enough):
        shortest = int(enough[max(len(enough) // 4, min(len(enough), 10)) - 1])
        history, targets = max(shortest - 10, shortest // 2), min(max((shortest - 4) // 6, 1), 19)
        advice = (
            f"choose smaller ones, for example -p shortest_user={shortest} -p history={history} -p targets={targets}, "
            f"for {(clicks >= shortest).sum():,} users"
        )
    return InputError(
        f"no user of log '{log.card.name}' has >= {minimum} clicks: {', '.join([*reached, 'the longest'])} "
        f"has {clicks[0]:,}; {advice}."
    )
