"""Statistics of a log's clicks: those on which the default generated world is calibrated, and what it is compared by.

`taobao_statistics.json` beside this file holds them for the head of the real Taobao log
(`benchmarks/calibration.py` makes it). They are computed from clicks alone, without any model or baseline.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dare_core.data.logs import Log

LAGS = (1, 2, 3, 5, 10, 20, 50, 100, 200)
RANKS = (1, 10, 100, 1_000)
WINDOWS = (50, 200)
PLURAL = {"category": "categories", "item": "items"}
POPULARITY_CLICKS = 75_000
"""Popularity depends on the number of clicks: it is computed on as many as the Taobao head has."""
STYLED_STATISTICS = Path(__file__).with_name("styled_statistics.json")
"""Two real logs beside the styled worlds (`benchmarks/calibrate_styles.py`)."""
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Statistics = dict[str, float | None]


def statistics(log: Log, shortest_user: int = 60) -> Statistics:
    """Statistics of a log's clicks by name, None where the log has no such clicks.

    Of users with at least `shortest_user` clicks: the share of clicks whose category or item equals the one `lag`
    clicks before; distinct values per full window of 50 and 200 clicks; the share of clicks whose category or
    item is among the user's last 50 or 200, of clicks that have so many before them; switches between categories
    (see `switches`). Of all clicks: how often two random ones have the same category. Of the first 75,000: the
    shares of the most popular categories and items, and of those clicked once.
    """
    all_lengths = np.diff(log.offsets)
    lengths = all_lengths[all_lengths >= shortest_user]
    kept = np.repeat(all_lengths >= shortest_user, all_lengths)
    user = np.repeat(np.arange(len(lengths)), lengths)
    position = np.arange(len(user)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    values = {"category": log.categories[kept].astype(np.int64), "item": log.items[kept].astype(np.int64)}
    gaps = {name: _gaps(user, position, value) for name, value in values.items()}
    found: Statistics = {}
    for name, value in values.items():
        for lag in LAGS:
            found[f"same {name} at lag {lag}"] = _share(value[lag:] == value[:-lag], user[lag:] == user[:-lag])
    count, rows = np.bincount(log.categories).astype(float), len(log.categories)
    found["same category by chance"] = float((count * (count - 1)).sum() / (rows * (rows - 1.0)))
    for window in WINDOWS:
        for name, plural in PLURAL.items():
            distinct = _distinct(user, position, lengths, gaps[name], window)
            for what, number in distinct.items():
                found[f"distinct {plural} per {window} clicks, {what}"] = number
    for window in WINDOWS:
        for name in PLURAL:
            found[f"{name} among the last {window}"] = _share(gaps[name] <= window, position >= window)
    arrivals, by_chance = switches(user, values["category"])
    found["two users' switches out of a category end in one"] = arrivals
    found["the same by chance"] = by_chance
    for plural, column in (("categories", log.categories), ("items", log.items)):
        clicks = np.sort(np.bincount(column[:POPULARITY_CLICKS])[1:])[::-1]
        for rank in RANKS:
            enough = rank <= np.count_nonzero(clicks)
            found[f"share of clicks on the top {rank} {plural}"] = _ratio(clicks[:rank], clicks) if enough else None
        found[f"share of clicks on {plural} clicked once"] = _ratio(clicks[clicks == 1], clicks)
    return found


def style_statistics(log: Log, style: Ints) -> Statistics:
    """How far a user's clicks within one category keep to a style, by name; `style` (items + 1,) is each item's, within
    its category.

    Of pairs of a user's clicks on different items of one category, `lag` clicks apart: the share of equal styles beyond
    chance, (share - chance) / (1 - chance), where chance is that of two random clicks on different items of the same
    category. Of items: the mean number per style, and how often two random ones of a category share a style.
    """
    user = np.repeat(np.arange(len(log.offsets) - 1), np.diff(log.offsets))
    items, categories, styles = log.items.astype(np.int64), log.categories.astype(np.int64), style[log.items]
    chance = _equal_styles(categories, styles, items)
    found: Statistics = {}
    for lag in LAGS:
        pair = (user[lag:] == user[:-lag]) & (categories[lag:] == categories[:-lag]) & (items[lag:] != items[:-lag])
        same = styles[lag:][pair] == styles[:-lag][pair]
        by_chance = chance[categories[lag:][pair]].mean() if pair.any() else 1.0
        found[f"same style at lag {lag}, beyond chance"] = (
            float((same.mean() - by_chance) / (1 - by_chance)) if by_chance < 1 else None
        )
    clicked = np.unique(items)
    category = np.zeros(len(style), np.int64)
    category[items] = categories
    found["items per style"] = len(clicked) / len(np.unique(np.stack([category, style])[:, clicked], axis=1).T)
    among_items = _equal_styles(category[clicked], style[clicked], clicked)
    weight = np.bincount(category[clicked], minlength=len(among_items))
    found["two items of a category have one style"] = float(np.average(among_items, weights=weight))
    return found


def _equal_styles(category: Ints, style: Ints, item: Ints) -> NDArray[np.float64]:
    """(categories + 1,) probability that two rows of a category with different items have equal styles; 0 without."""

    def squares(*keys: Ints) -> NDArray[np.float64]:
        """Per category, the sum over values of the keys of the squared number of rows."""
        _, first, group = np.unique(np.stack([category, *keys]), axis=1, return_index=True, return_inverse=True)
        rows = np.bincount(group.ravel()).astype(np.float64)
        return np.bincount(category[first], weights=rows**2, minlength=category.max() + 1).astype(np.float64)

    same_item = squares(style, item)
    pairs = squares() - same_item
    return np.divide(squares(style) - same_item, pairs, out=np.zeros_like(pairs), where=pairs > 0)


def taobao_statistics() -> dict[str, Any]:
    """`statistics` of the head of the real Taobao log, with `made` (how) and `source_sha256`."""
    return json.loads(Path(__file__).with_name("taobao_statistics.json").read_text("utf-8"))


def _ratio(part: Ints, whole: Ints) -> float:
    return float(part.sum() / whole.sum())


def _share(hit: Bools, where: Bools) -> float | None:
    return float(hit[where].mean()) if where.any() else None


def _gaps(user: Ints, position: Ints, value: Ints) -> Ints:
    """Clicks since the user's previous click on the same value; a very large number where there is none."""
    order = np.lexsort((position, value, user))
    gap = np.full(len(user), np.iinfo(np.int64).max)
    u, v, p = user[order], value[order], position[order]
    again = (u[1:] == u[:-1]) & (v[1:] == v[:-1])
    gap[order[1:][again]] = (p[1:] - p[:-1])[again]
    return gap


def _distinct(user: Ints, position: Ints, length: Ints, gap: Ints, window: int) -> Statistics:
    """Distinct values in each user's successive full windows: clicks without an equal one before them in theirs."""
    names = ("mean", "10 % quantile", "90 % quantile")
    inside = position < length[user] // window * window
    if not inside.any():
        return dict.fromkeys(names)
    new = gap > position % window
    key = (user * (position.max() // window + 1) + position // window)[inside]
    count = np.add.reduceat(new[inside], np.flatnonzero(np.diff(key, prepend=-1)))
    return dict(zip(names, map(float, (count.mean(), *np.quantile(count, (0.1, 0.9)))), strict=True))


def _pairs_of_different_users(key: Ints, user: Ints) -> int:
    """Ordered pairs of rows with equal key and different users."""
    _, by_key = np.unique(key, return_counts=True)
    _, by_both = np.unique(np.stack([key, user]), axis=1, return_counts=True)
    return int((by_key * (by_key - 1)).sum() - (by_both * (by_both - 1)).sum())


def switches(user: Ints, category: Ints) -> tuple[float | None, float | None]:
    """Of two users' switches out of one category, the share that arrive at one category; and by chance.

    A switch is a click in another category than the one before. This measures how far categories are
    related for all users, apart from the categories to which a single user returns.
    """
    switch = (user[1:] == user[:-1]) & (category[1:] != category[:-1])
    who, source, target = user[1:][switch], category[:-1][switch], category[1:][switch]
    all_pairs = _pairs_of_different_users(np.zeros_like(who), who)
    leaving = _pairs_of_different_users(source, who)
    if leaving == 0:
        return None, None
    both = _pairs_of_different_users(source * (category.max() + 1) + target, who)
    return both / leaving, _pairs_of_different_users(target, who) / all_pairs
