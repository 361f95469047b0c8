"""Checks of the rows of an own log: what is mended by an option is counted on the card in any case."""

from typing import Any

import numpy as np
import polars as pl

from dare_core.data.delimited import Faults, cut
from dare_core.data.intake.times import Times, as_text
from dare_core.errors import InputError

NULL_WORDS = ("null", "(null)", "nan", "none", "na", "n/a", "#n/a", "<na>", "nat", "nil", "undefined")
NULLS = ["", "\\N", *(form(word) for word in NULL_WORDS for form in (str.lower, str.upper, str.title)), "NaN", "NaT"]
"""What programs write for a missing id."""
CLICKS = ["1", "1.0", "true", "t", "yes", "y", "click", "clicked"]
SHOWN = ["0", "0.0", "false", "f", "no", "n", "no click", "not clicked", "impression", "view", "shown", "show", "skip"]
SHOWN_PER_CLICK = 4
FAR = 10
"""Interquartile ranges from the middle half of the times, beyond which one is implausible."""
TIES_SEED = 0


def without(frame: pl.DataFrame, bad: pl.Series, reason: str, column: str, faults: Faults) -> pl.DataFrame:
    """The rows that are not bad; the others are noted with their place and value."""
    if not bad.any():
        return frame
    lost = frame.filter(bad)
    first = lost.head(5)
    places: list[object] = first["line"].to_list()
    if "file" in frame.columns:
        places = [f"{line} of {file}" for line, file in zip(places, first["file"], strict=True)]
    faults.add(reason, places, lost.height, first[column].to_list())
    return frame.filter(~bad)


def missing(ids: pl.Series) -> pl.Series:
    """Which ids are none: empty, blank, not a number, or a word that stands for a missing value."""
    none = ids.is_null()
    if isinstance(ids.dtype, pl.Categorical | pl.Enum):
        ids = ids.cast(pl.String)
    if ids.dtype == pl.String:
        if ids.str.contains(r"^\s").any():
            ids = ids.str.strip_chars()
        none |= ids.is_in(NULLS)
    return none | ids.is_nan() if ids.dtype.is_float() else none


def labels(column: pl.Series) -> pl.Series:
    """True for a click, false for an impression without one, null for what is neither."""
    text = column.cast(pl.String).str.strip_chars().str.to_lowercase().to_frame("text")
    word = pl.col("text")
    return text.select(pl.when(word.is_in(CLICKS)).then(True).when(word.is_in(SHOWN)).then(False)).to_series()


def tidy(ids: pl.Series) -> pl.Series:
    """Ids without blanks around them and without `.0` at the end of a number."""
    if ids.dtype != pl.String:
        return ids
    return ids.str.strip_chars().str.replace(r"^([-+]?\d+)\.0*$", "$1")


def untidy(ids: pl.Series) -> int:
    """How many different ids there are more than without blanks and `.0`."""
    return ids.len() - tidy(ids).n_unique() if ids.dtype == pl.String else 0


def in_powers_of_ten(ids: pl.Series) -> int:
    """How many different ids look like 1.23E+17: a spreadsheet has cut them, and different ones may be equal now."""
    return int(ids.str.contains(r"^\d(?:[.,]\d+)?[eE]\+\d+$").sum()) if ids.dtype == pl.String else 0


def ordered(frame: pl.DataFrame, shuffle: bool, drop_copies: bool = False) -> tuple[pl.DataFrame, dict[str, int]]:
    """Rows by user (a number) and time, and how many were out of order, tie, or are copies.

    Rows of a user with equal times are shuffled with a fixed seed, or keep the file's order. A copy repeats an earlier
    row in all columns that are read; it is left out where asked for.
    """
    frame = frame.sort("user", maintain_order=True)
    same = pl.col("user") == pl.col("user").shift()
    out_of_order = frame.select((same & (pl.col("time") < pl.col("time").shift())).sum()).item()
    if out_of_order:
        frame = frame.sort("user", "time", maintain_order=True)
    again = (same & (pl.col("time") == pl.col("time").shift())).fill_null(False)
    frame = frame.with_columns(tie=again | again.shift(-1, fill_value=False))
    ties, copies = int(frame["tie"].sum()), 0
    if ties:
        columns = [column for column in frame.columns if column not in ("line", "file", "tie")]
        copy = frame.filter("tie").select(~pl.struct(columns).is_first_distinct()).to_series()
        copies = int(copy.sum())
        if copies and drop_copies:
            rows = frame.with_row_index("row").filter("tie").filter(copy)["row"]
            frame = frame.with_row_index("row").filter(~pl.col("row").is_in(rows.implode())).drop("row")
        if shuffle:
            draw = np.random.default_rng(TIES_SEED).permutation(frame.height)
            frame = frame.with_columns(draw=pl.Series(draw)).sort("user", "time", "draw").drop("draw")
    found = {"rows out of order": out_of_order, "rows of a user with equal times": ties, "exact copies": copies}
    return frame.drop("tie"), found


def most_frequent(frame: pl.DataFrame, column: str) -> pl.DataFrame:
    """Item and its most frequent value of a column, of equally frequent ones the latest; one row per item.

    `frame` has the column `item`; of its rows the later ones, by `time` where there is one, are the latest.
    """
    later = ["time"] if "time" in frame.columns else []
    pairs = frame.with_row_index("row").group_by("item", column).agg(pl.len().alias("n"), pl.col("row", *later).max())
    return pairs.sort("n", *later, "row", descending=True).unique("item", keep="first", maintain_order=True).select(
        "item", column
    )  # fmt: skip


def one_category(frame: pl.DataFrame) -> tuple[pl.DataFrame, int, int]:
    """Rows in which every item has its one category; how many items had several, how many rows are changed."""
    pairs = frame.select("item", "category").unique()
    several = pairs.filter(pl.col("item").is_duplicated())["item"].unique()
    if several.is_empty():
        return frame, 0, 0
    columns = ["item", "category", *(["time"] if "time" in frame.columns else [])]
    chosen = most_frequent(frame.select(columns).filter(pl.col("item").is_in(several.implode())), "category")
    joined = frame.join(chosen.rename({"category": "one"}), on="item", how="left", maintain_order="left")
    category = joined.select(pl.coalesce("one", "category")).to_series()
    changed = int((category != frame["category"]).sum())
    return frame.with_columns(category=category), several.len(), changed


def implausible(times: Times, key: pl.Series) -> dict[str, int]:
    """Times of zero where others are dates, and those far outside the middle half of all."""
    some = key.gather_every(max(len(key) // 100_000, 1))
    low, high = some.quantile(0.25), some.quantile(0.75)
    if low is None or high is None:
        return {}
    least = 86_400 * times.per_second if times.dated else 1
    reach = FAR * max(high - low, least)
    zero = (key == 0) & bool(times.dated)
    far = ((key < low - reach) | (key > high + reach)) & ~zero
    return {"times of zero": int(zero.sum()), "times far outside the others": int(far.sum())}


def largest_user(users: pl.Series, names: pl.Series) -> str:
    """The user with most rows and its share of all, from the rows' users as numbers."""
    counts = np.bincount(users.to_numpy())
    rows = int(counts.max())
    return (
        f"{cut(names[int(counts.argmax()) - 1])} has {rows:,} of {len(users):,} rows ({100 * rows / len(users):.1f} %)"
    )


def leave_out_users(frame: pl.DataFrame, users: tuple[str, ...], most: int | None) -> tuple[pl.DataFrame, list[str]]:
    """Rows without some users, and without those of more than `most` rows."""
    said = []
    if users:
        ids = frame["user"].cast(pl.String)
        unknown = set(users) - set(ids.filter(ids.is_in(list(users))).unique())
        if unknown:
            raise InputError(f"there is no user {cut(min(unknown))} to leave out: give ids as they are in the file.")
        kept = frame.filter(~ids.is_in(list(users)))
        said.append(f"Left out {frame.height - kept.height:,} rows of {len(set(users))} users that were named.")
        frame = kept
    if most is not None:
        kept = frame.filter(pl.len().over("user") <= most)
        lost = frame["user"].n_unique() - kept["user"].n_unique()
        said.append(f"Left out {frame.height - kept.height:,} rows of {lost:,} users with more than {most:,} rows.")
        frame = kept
    return frame, said


def shown_rows(user: np.ndarray, item: np.ndarray, clicked: np.ndarray) -> np.ndarray:
    """For each click, the rows (clicks, 4) of the nearest impressions of its user without a click, -1 for none.

    Rows are in order of user and time. Nearest: by the number of rows between, the earlier first; impressions of the
    clicked item itself are passed over.
    """
    import numba  # here: other logs do not wait for it

    nearest = numba.njit(cache=True)(_nearest_impressions)
    found: np.ndarray = nearest(user, item, np.flatnonzero(clicked), np.flatnonzero(~clicked), SHOWN_PER_CLICK)
    return found


def _nearest_impressions(
    user: np.ndarray, item: np.ndarray, clicks: np.ndarray, impressions: np.ndarray, most: int
) -> np.ndarray:
    """`shown_rows` from the rows of clicks and of impressions."""
    found = np.full((len(clicks), most), -1, np.int64)
    for click, row in enumerate(clicks):
        later = np.searchsorted(impressions, row)
        earlier = later - 1
        for place in range(most):
            while earlier >= 0 and user[impressions[earlier]] == user[row] and item[impressions[earlier]] == item[row]:
                earlier -= 1
            while (
                later < len(impressions)
                and user[impressions[later]] == user[row]
                and item[impressions[later]] == item[row]
            ):
                later += 1
            before = earlier >= 0 and user[impressions[earlier]] == user[row]
            after = later < len(impressions) and user[impressions[later]] == user[row]
            if before and (not after or row - impressions[earlier] <= impressions[later] - row):
                found[click, place] = impressions[earlier]
                earlier -= 1
            elif after:
                found[click, place] = impressions[later]
                later += 1
            else:
                break
    return found


def span(times: Times, key: pl.Series) -> dict[str, Any]:
    """First and last time, and those that are implausible."""
    first, last = (as_text(value, times) for value in (key.min(), key.max()))  # type: ignore[arg-type]
    return {"first time": first, "last time": last, **implausible(times, key)}
