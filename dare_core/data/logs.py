"""Interaction logs: one schema for every source, stored as Parquet with a data card, read into arrays."""

import difflib
import hashlib
import inspect
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from pydantic import BaseModel, ValidationError

from dare_core.data.readers import READERS, OnBadRows, number
from dare_core.errors import InputError
from dare_core.files import atomic_folder, locked, remove_folder, store_root, write_json

COMPLETE_JOURNEY = "complete_journey"  # its package is a dependency: this log needs no preparation by the user


class Card(BaseModel, frozen=True, extra="forbid"):
    """The data card of a log: its source, what was kept of it, and its size."""

    name: str
    title: str
    kind: Literal["generated log", "published log", "own log"]
    source: str
    terms: str
    provenance: list[str] = []
    sha256: str  # of the source file; of a generated world: of the canonical JSON of its configuration
    rows_read: int
    rows_kept: int
    users: int
    items: int
    categories: int
    filters: list[str]
    bad_rows: int = 0
    created_with: dict[str, Any]  # the options
    fingerprint: str = ""  # of the arrays; filled in by `store_log`


@dataclass(frozen=True)
class Log:
    """An interaction log: clicks, contiguous by user, oldest first. Ids start at 1; 0 is padding."""

    card: Card
    items: np.ndarray  # int32 (rows,)
    categories: np.ndarray  # int32 (rows,)
    offsets: np.ndarray  # int64 (users + 1,): user u (from 0) owns rows offsets[u]:offsets[u + 1]
    item_category: np.ndarray  # int32 (items + 1,): an item's most recent category; [0] is 0
    item_probability: np.ndarray | None = None  # float64 (items + 1,): true draw probabilities of a generated world
    shown: np.ndarray | None = None
    item_group: np.ndarray | None = None

    @property
    def fingerprint(self) -> str:
        """Content hash of the arrays: two logs have the same one exactly when their clicks are the same."""
        return self.card.fingerprint


def prepare(
    reader: str,
    path: Path | str | None = None,
    *,
    name: str,
    on_bad_rows: OnBadRows = "refuse",
    **options: Any,
) -> Log:
    """Read a raw log, renumber its ids from 1 in order of appearance, and store it as `name`.

    `reader` is one of `READERS`; `options` are the reader's own (the column names of `table`). A log that is
    stored under the same name is replaced. Raises InputError for input that cannot be used.
    """
    _folder(name)  # refuse a bad name before the work
    if (name == COMPLETE_JOURNEY) != (reader == COMPLETE_JOURNEY):
        raise InputError(f"the name '{COMPLETE_JOURNEY}' belongs to the reader of that name: choose another --name.")
    built = _read(reader, path, name, on_bad_rows, options)
    with locked(_folder(name)):  # between the two, another process would store its own log under this name
        remove_folder(_folder(name))
        return store_log(*built)


def _read(
    reader: str, path: Path | str | None, name: str, on_bad_rows: OnBadRows, options: dict[str, Any]
) -> tuple[Card, pl.DataFrame, np.ndarray]:
    """Card, rows and categories of items of a raw log, ids renumbered."""
    if reader not in READERS:
        raise InputError(f"there is no reader '{reader}': readers are {', '.join(READERS)}.")
    read = READERS[reader]
    for option in options:
        if option not in list(inspect.signature(read).parameters)[2:]:
            raise InputError(
                f"the reader '{reader}' has no option '{option}': leave it out, or use the reader 'table'."
            )
    if path is None and reader != COMPLETE_JOURNEY:
        raise InputError(f"the reader '{reader}' needs the path of a file.")
    try:
        reading = read(None if path is None else Path(path), on_bad_rows, **options)
    except (pl.exceptions.PolarsError, OSError) as e:
        raise InputError(f"'{path}' cannot be read ({str(e).splitlines()[0]}): check the file.") from e
    frame, reading = reading.frame, replace(reading, frame=pl.DataFrame())  # a raw id goes when it is numbered
    frame = frame.with_columns((pl.col("user").rle_id() + 1).cast(pl.Int32))  # users are contiguous: their runs
    for column in ("item", "category"):
        frame = frame.with_columns(number(frame[column]))
    bad = reading.faults.counts.total()
    filters = [f"Left out {bad:,} bad row{'s' if bad > 1 else ''}: {reading.faults.sentence()}."] if bad else []
    card = Card(
        name=name,
        **reading.facts,
        sha256=reading.sha256,
        rows_read=reading.rows_read,
        rows_kept=frame.height,
        users=int(frame["user"].to_numpy()[-1]),
        items=int(frame["item"].to_numpy().max()),
        categories=int(frame["category"].to_numpy().max()),
        filters=filters + reading.filters,
        bad_rows=bad,
        created_with={"reader": reader, "on_bad_rows": on_bad_rows, **options, **reading.details},
    )
    return card, frame, _latest_category(frame, card.items)


def _latest_category(frame: pl.DataFrame, items: int) -> np.ndarray:
    """Category of each item's last row, by time where there is one, else as stored; int32 (items + 1,)."""
    item, category = frame["item"].to_numpy(), frame["category"].to_numpy()
    latest = np.zeros(items + 1, np.int32)
    latest[item] = category  # of repeated indices the last assignment stays
    changed = np.unique(item[latest[item] != category])
    if len(changed) and frame["time"].null_count() == 0:
        rows = np.flatnonzero(np.isin(item, changed))
        rows = rows[np.argsort(frame["time"].to_numpy()[rows], kind="stable")]
        latest[item[rows]] = category[rows]
    return latest


def store_log(
    card: Card, frame: pl.DataFrame, item_category: np.ndarray, item_probability: np.ndarray | None = None
) -> Log:
    """Store a log whose ids are final, and return it.

    `frame` has the columns user, item, category (1, 2, …; users contiguous and ascending, each with a row)
    and, where known, behaviour and time. `item_category` (items + 1,) and the card may hold items and
    categories that never occur. The card's fingerprint is filled in. A log that is already stored under
    this name is kept: another process wrote it from the same input. ValueError where rows and card disagree.
    """
    frame = frame.select(
        pl.col("user", "item", "category").cast(pl.Int32),
        *(
            pl.col(column) if column in frame.columns else pl.lit(None, dtype=dtype).alias(column)
            for column, dtype in (("behaviour", pl.String), ("time", pl.Int64))
        ),
    )
    table = pl.DataFrame({"category": item_category.astype(np.int32)})
    if item_probability is not None:
        table = table.with_columns(probability=pl.Series(item_probability.astype(np.float64)))
    log = _arrays(card, frame.get_column, table)
    log = replace(log, card=card.model_copy(update={"fingerprint": _fingerprint(log)}))
    with atomic_folder(_folder(card.name)) as folder:
        frame.write_parquet(folder / "log.parquet")
        table.write_parquet(folder / "items.parquet")
        write_json(folder / "card.json", log.card.model_dump())
    return log


def _arrays(card: Card, column: Callable[[str], pl.Series], table: pl.DataFrame) -> Log:
    """The log of the columns user, item and category, which are read one after another, and of the table of items.

    Raises ValueError where they are not what the card says.
    """
    runs = column("user").rle()
    item, category = column("item").to_numpy(writable=True), column("category").to_numpy(writable=True)
    offsets = np.append(0, runs.struct.field("len").to_numpy().cumsum(dtype=np.int64))
    item_category = table["category"].to_numpy()
    sound = (
        len(item) == len(category) == offsets[-1] == card.rows_kept > 0
        and np.array_equal(runs.struct.field("value"), np.arange(1, card.users + 1))
        and len(item_category) == card.items + 1
        and 1 <= item.min() <= item.max() <= card.items
        and 1 <= category.min() <= category.max() <= card.categories
        and item_category[0] == 0
    )
    if not sound:
        raise ValueError(f"the rows of log '{card.name}' are not those of its card")
    return Log(
        card=card,
        items=item,
        categories=category,
        offsets=offsets,
        item_category=item_category,
        item_probability=table["probability"].to_numpy() if "probability" in table.columns else None,
    )


def _fingerprint(log: Log) -> str:
    """First 16 hexadecimal digits of the SHA-256 of the arrays."""
    digest = hashlib.sha256()
    for array in (log.offsets, log.items, log.categories, log.item_category, log.item_probability):
        if array is not None:
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]


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
    folder = _folder(name)
    if not folder.exists():
        return None
    try:
        card = _card(folder)
        stored = pl.scan_parquet(folder / "log.parquet", glob=False)
        table = pl.read_parquet(folder / "items.parquet", glob=False)
        log = _arrays(card, lambda name: stored.select(name).collect().to_series(), table)
        if _fingerprint(log) != card.fingerprint:
            raise ValueError("its rows were changed")
    except (OSError, ValueError, pl.exceptions.PolarsError) as e:
        raise InputError(
            f"the stored log '{name}' is damaged ({str(e).splitlines()[0]}): remove it with "
            f"`dare data remove {name}` and prepare it again."
        ) from e
    return log


def available() -> list[Card]:
    """Cards of all stored logs, by name."""
    folders = sorted((store_root() / "logs").glob("[!.]*/card.json"))
    try:
        return [_card(path.parent) for path in folders]
    except ValueError as e:
        raise InputError(f"a data card in the store cannot be read ({str(e).splitlines()[0]}): remove its log.") from e


def remove(name: str) -> None:
    """Delete a stored log."""
    if not _folder(name).exists():
        raise InputError(f"there is no log '{name}' to remove: see `dare data list`.")
    shutil.rmtree(_folder(name))


def load_times(log: Log) -> np.ndarray | None:
    """TEMP"""
    times = pl.read_parquet(_folder(log.card.name) / "log.parquet", columns=["time"])["time"]
    return None if times.null_count() else times.to_numpy()


def lengths(log: Log) -> np.ndarray:
    """Clicks of each user, int64 (users,)."""
    return np.diff(log.offsets)


def shortest_user_error(log: Log, minimum: int) -> InputError:
    """The error for a log in which no user has `minimum` clicks: how many users have how many."""
    clicks = lengths(log)
    reached = [f"{(clicks >= least).sum():,} have >= {least}" for least in (20, 60, 110, 210) if least < minimum]
    return InputError(
        f"no user of log '{log.card.name}' has >= {minimum} clicks: {', '.join([*reached, 'the longest'])} "
        f"has {clicks.max():,}; choose smaller ones, "
        f"for example -p shortest_user=60 -p history=50 -p targets=9."
    )


def _card(folder: Path) -> Card:
    try:
        return Card.model_validate_json((folder / "card.json").read_text("utf-8"))
    except ValidationError as e:
        raise ValueError(f"card of '{folder.name}': {e.errors()[0]['msg']}") from e


def _folder(name: str) -> Path:
    """Folder of a log; the name must be one, not a path."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", name):
        raise InputError(f"'{name}' cannot name a log: use letters, digits, '-', '_' and '.', a letter or digit first.")
    return store_root() / "logs" / name
