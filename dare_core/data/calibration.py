"""What a click log looks like: the statistics on which the default generated world is calibrated.

`taobao_statistics.json` beside this file holds them for the head of the real Taobao log. They are computed
from clicks alone; no model or rule takes part.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dare_core.data.logs import Log

LAGS = (*range(1, 51), 75, 100, 150, 200)
RANKS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000)
QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
# Popularity curves depend on the number of clicks: they are compared on as many as the Taobao head has.
POPULARITY_CLICKS = 75_000
Ints = NDArray[np.int64]


def _gaps(user: Ints, position: Ints, value: Ints) -> Ints:
    """Clicks since the user's previous click on the same value; a very large number where there is none."""
    order = np.lexsort((position, value, user))
    gap = np.full(len(user), np.iinfo(np.int64).max)
    u, v, p = user[order], value[order], position[order]
    again = (u[1:] == u[:-1]) & (v[1:] == v[:-1])
    gap[order[1:][again]] = (p[1:] - p[:-1])[again]
    return gap


def _same(user: Ints, value: Ints, lag: int) -> float | None:
    pairs = user[lag:] == user[:-lag]
    return float((value[lag:] == value[:-lag])[pairs].mean()) if pairs.any() else None


def _distinct(user: Ints, position: Ints, length: Ints, gap: Ints, window: int) -> dict[str, float] | None:
    """Distinct values in each user's successive full windows: clicks with no equal one before in theirs."""
    inside = position < length[user] // window * window
    if not inside.any():
        return None
    new = gap > position % window
    key = (user * (position.max() // window + 1) + position // window)[inside]
    count = np.add.reduceat(new[inside], np.flatnonzero(np.diff(key, prepend=-1)))
    low, middle, high = np.quantile(count, (0.1, 0.5, 0.9))
    return {"mean": float(count.mean()), "q10": float(low), "q50": float(middle), "q90": float(high)}


def _share(hit: NDArray[np.bool_], where: NDArray[np.bool_]) -> float | None:
    return float(hit[where].mean()) if where.any() else None


def _pairs_of_different_users(key: Ints, user: Ints) -> int:
    """Ordered pairs of rows with equal key and different users."""
    _, by_key = np.unique(key, return_counts=True)
    _, by_both = np.unique(np.stack([key, user]), axis=1, return_counts=True)
    return int((by_key * (by_key - 1)).sum() - (by_both * (by_both - 1)).sum())


def _switches(user: Ints, category: Ints) -> dict[str, float | None]:
    """Of two users' switches out of one category, the share that arrive at one category; and by chance.

    A switch is a click in another category than the one before. This measures how far categories are
    related for everybody, apart from what one user returns to.
    """
    switch = (user[1:] == user[:-1]) & (category[1:] != category[:-1])
    who, source, target = user[1:][switch], category[:-1][switch], category[1:][switch]
    all_pairs = _pairs_of_different_users(np.zeros_like(who), who)
    leaving = _pairs_of_different_users(source, who)
    if leaving == 0:
        return {"same_arrival": None, "by_chance": None}
    both = _pairs_of_different_users(source * (category.max() + 1) + target, who)
    return {"same_arrival": both / leaving, "by_chance": _pairs_of_different_users(target, who) / all_pairs}


def _popularity(value: Ints) -> dict[str, Any]:
    """Share of clicks on the r most clicked values, and on those clicked once, in the first 75,000 clicks."""
    count = np.sort(np.bincount(value[:POPULARITY_CLICKS])[1:])[::-1]
    total = np.cumsum(count)
    ranks = [r for r in RANKS if r <= np.count_nonzero(count)]
    return {
        "clicks": int(total[-1]),
        "distinct": int(np.count_nonzero(count)),
        "ranks": ranks,
        "top_share": [float(total[r - 1] / total[-1]) for r in ranks],
        "once_share": float((count == 1).sum() / total[-1]),
    }


def statistics(log: Log, shortest_user: int = 60) -> dict[str, Any]:
    """Statistics of a log's clicks, as JSON values (None where the log has no such clicks).

    Over users with at least `shortest_user` clicks: `same_category` and `same_item` by lag (share of clicks
    equal to the one `lag` clicks before), `distinct` per window of 50 and 200 clicks, `seen` (share of
    clicks whose item or category is among the user's last 50 or 200, over clicks that have so many before
    them, and over each user's last click against its last 200), `switches`. Over all clicks:
    `same_category_by_chance` (two random clicks), `category_popularity`, `item_popularity`, `lengths`.
    """
    all_lengths = np.diff(log.offsets)
    lengths = all_lengths[all_lengths >= shortest_user]
    kept = np.repeat(all_lengths >= shortest_user, all_lengths)
    user = np.repeat(np.arange(len(lengths)), lengths)
    position = np.arange(len(user)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    values = {"item": log.items[kept].astype(np.int64), "category": log.categories[kept].astype(np.int64)}
    gaps = {name: _gaps(user, position, value) for name, value in values.items()}
    last = position == lengths[user] - 1
    count = np.bincount(log.categories).astype(float)
    rows = len(log.categories)
    seen: dict[str, Any] = {}
    for name, window, where in (
        ("last_50", 50, position >= 50),
        ("last_200", 200, position >= 200),
        ("last_click", 200, last),
    ):
        seen[name] = {v: _share(gaps[v] <= window, where) for v in values}
    return {
        "users": len(lengths),
        "clicks": len(user),
        "shortest_user": shortest_user,
        "all_users": len(all_lengths),
        "all_clicks": rows,
        "lags": list(LAGS),
        "same_category": [_same(user, values["category"], lag) for lag in LAGS],
        "same_item": [_same(user, values["item"], lag) for lag in LAGS],
        "same_category_by_chance": float((count * (count - 1)).sum() / (rows * (rows - 1.0))),
        "distinct": {str(w): {v: _distinct(user, position, lengths, gaps[v], w) for v in values} for w in (50, 200)},
        "seen": seen,
        "switches": _switches(user, values["category"]),
        "category_popularity": _popularity(log.categories),
        "item_popularity": _popularity(log.items),
        "lengths": {f"q{round(100 * q)}": float(np.quantile(all_lengths, q)) for q in QUANTILES},
    }


def taobao_statistics() -> dict[str, Any]:
    """The stored statistics of the head of the real Taobao log, with how they were made."""
    return json.loads(Path(__file__).with_name("taobao_statistics.json").read_text("utf-8"))


def _named(s: dict[str, Any]) -> dict[str, float | None]:
    """The single numbers that are compared, under the names that the Data chapter shows."""
    lag = {n: i for i, n in enumerate(s["lags"])}
    rows: dict[str, float | None] = {}
    for value in ("category", "item"):
        for n in (1, 2, 3, 5, 10, 20, 50, 100, 200):
            rows[f"same {value} at lag {n}"] = s[f"same_{value}"][lag[n]]
    rows["same category by chance"] = s["same_category_by_chance"]
    for window in ("50", "200"):
        for value, plural in (("category", "categories"), ("item", "items")):
            for key, word in (("mean", "mean"), ("q10", "10 % quantile"), ("q90", "90 % quantile")):
                found = s["distinct"][window][value]
                rows[f"distinct {plural} per {window} clicks, {word}"] = found and found[key]
    for key, words in (("last_50", "among the last 50"), ("last_200", "among the last 200")):
        for value in ("category", "item"):
            rows[f"{value} {words}"] = s["seen"][key][value]
    rows["two users' switches out of a category end in one"] = s["switches"]["same_arrival"]
    rows["the same by chance"] = s["switches"]["by_chance"]
    for value, plural in (("category", "categories"), ("item", "items")):
        p = s[f"{value}_popularity"]
        top = dict(zip(p["ranks"], p["top_share"], strict=True))
        for r in (1, 10, 100, 1_000):
            rows[f"share of clicks on the top {r} {plural}"] = top.get(r)
        rows[f"share of clicks on {plural} clicked once"] = p["once_share"]
    return rows


def match(first: dict[str, Any], second: dict[str, Any]) -> pl.DataFrame:
    """Two logs' statistics side by side: columns statistic, first, second, ratio (second / first)."""
    a, b = _named(first), _named(second)
    frame = pl.DataFrame(
        {"statistic": list(a), "first": list(a.values()), "second": [b[name] for name in a]},
        schema={"statistic": pl.String, "first": pl.Float64, "second": pl.Float64},
    )
    return frame.with_columns(ratio=pl.col("second") / pl.col("first"))
