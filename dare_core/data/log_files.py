"""A log as arrays and as files: its schema, its data card, and the Parquet files that hold it."""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from pydantic import BaseModel, ValidationError

from dare_core.errors import InputError
from dare_core.files import atomic_folder, store_root, write_json


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
    found: dict[str, Any] = {}  # the form in which the file was found: separator, encoding, times, …
    checks: dict[str, Any] = {}  # what may mislead a study: ties, copies, the largest user, …
    fingerprint: str = ""  # of the arrays; filled in by `store_log`


@dataclass(frozen=True)
class Log:
    """An interaction log: clicks, contiguous by user, oldest first. Ids start at 1; 0 is padding."""

    card: Card
    items: np.ndarray  # int32 (rows,)
    categories: np.ndarray  # int32 (rows,)
    offsets: np.ndarray  # int64 (users + 1,): user u (from 0) owns rows offsets[u]:offsets[u + 1]
    item_category: np.ndarray  # int32 (items + 1,): its latest category, of `table` its most frequent; [0] is 0
    item_probability: np.ndarray | None = None  # float64 (items + 1,): true draw probabilities of a generated world
    item_group: np.ndarray | None = None  # int32 (items + 1,): an item's group, for example its city; [0] is 0
    shown: np.ndarray | None = None  # int32 (rows, 4): items shown near a click and not clicked, nearest first; 0: none

    @property
    def fingerprint(self) -> str:
        """Content hash of the arrays: two logs have the same one exactly when their clicks are the same."""
        return self.card.fingerprint


def store_log(
    card: Card,
    frame: pl.DataFrame,
    item_category: np.ndarray,
    item_probability: np.ndarray | None = None,
    item_group: np.ndarray | None = None,
    shown: np.ndarray | None = None,
    *,
    overwrite: bool = False,
) -> Log:
    """Store a log whose ids are final, and return it.

    `frame` has the columns user, item, category (1, 2, …; users contiguous and ascending, each with a row)
    and, where known, behaviour and time. `item_category` (items + 1,) and the card may hold items and
    categories that never occur; `item_group` (items + 1,) and `shown` (rows, 4) are as in `Log`. The card's
    fingerprint is filled in. A log that is already stored under this name is kept: another process wrote it from the
    same input; with `overwrite`, which needs the log's lock, it is replaced. ValueError where rows and card disagree.
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
    if item_group is not None:
        table = table.with_columns(group=pl.Series(item_group.astype(np.int32)))
    beside = None if shown is None else pl.DataFrame(shown.astype(np.int32), [f"shown_{n}" for n in range(1, 5)])
    log = _arrays(card, frame.get_column, table, beside)
    log = replace(log, card=card.model_copy(update={"fingerprint": _fingerprint(log)}))
    with atomic_folder(log_folder(card.name), overwrite) as folder:
        frame.write_parquet(folder / "log.parquet")
        table.write_parquet(folder / "items.parquet")
        if beside is not None:
            beside.write_parquet(folder / "shown.parquet")
        write_json(folder / "card.json", log.card.model_dump())
    return log


def _arrays(
    card: Card, column: Callable[[str], pl.Series], table: pl.DataFrame, shown: pl.DataFrame | None = None
) -> Log:
    """The log of the columns user, item and category, which are read one after another, and of the table of items.

    Raises ValueError where they are not what the card says.
    """
    runs = column("user").rle()
    item, category = column("item").to_numpy(writable=True), column("category").to_numpy(writable=True)
    offsets = np.append(0, runs.struct.field("len").to_numpy().cumsum(dtype=np.int64))
    item_category = table["category"].to_numpy()
    beside = None if shown is None else np.ascontiguousarray(shown.to_numpy())
    sound = (
        len(item) == len(category) == offsets[-1] == card.rows_kept > 0
        and np.array_equal(runs.struct.field("value"), np.arange(1, card.users + 1))
        and len(item_category) == card.items + 1
        and 1 <= item.min() <= item.max() <= card.items
        and 1 <= category.min() <= category.max() <= card.categories
        and item_category[0] == 0
        and (beside is None or (len(beside) == len(item) and 0 <= beside.min() <= beside.max() <= card.items))
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
        item_group=table["group"].to_numpy() if "group" in table.columns else None,
        shown=beside,
    )


def _fingerprint(log: Log) -> str:
    """First 16 hexadecimal digits of the SHA-256 of the arrays; those that a log does not have leave no trace."""
    digest = hashlib.sha256()
    for name in ("offsets", "items", "categories", "item_category", "item_probability", "item_group", "shown"):
        array = getattr(log, name)
        if array is not None:
            mark = name if name in ("item_group", "shown") else ""
            digest.update(f"{mark}{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]


def read_log_files(folder: Path, card: Card) -> Log:
    """The log in a folder. Raises ValueError where its rows are not those of its card."""
    stored = pl.scan_parquet(folder / "log.parquet", glob=False)
    table = pl.read_parquet(folder / "items.parquet", glob=False)
    beside = folder / "shown.parquet"
    shown = pl.read_parquet(beside, glob=False) if beside.exists() else None
    log = _arrays(card, lambda name: stored.select(name).collect().to_series(), table, shown)
    if _fingerprint(log) != card.fingerprint:
        raise ValueError("its rows were changed")
    return log


def read_card(folder: Path) -> Card:
    try:
        return Card.model_validate_json((folder / "card.json").read_text("utf-8"))
    except ValidationError as e:
        raise ValueError(f"card of '{folder.name}': {e.errors()[0]['msg']}") from e


def log_folder(name: str) -> Path:
    """Folder of a log; the name must be one, not a path."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", name):
        raise InputError(f"'{name}' cannot name a log: use letters, digits, '-', '_' and '.', a letter or digit first.")
    return store_root() / "logs" / name
