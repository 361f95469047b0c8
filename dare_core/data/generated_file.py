"""Writes generated logs as raw files in the format of Taobao's `UserBehavior.csv`, at the published size.

Rows are `user,item,category,behaviour,timestamp` without a header, users one after another, oldest first. The
file serves to measure preparation and training at paper scale; findings use the logs of `dare_core.data.worlds`, whose
true relevance is known.

**Size.** A file of 100 million rows has 984,114 users, 4,068,790 items and 9,407 categories among its clicks,
the published counts; a file of n rows has n / 10^8 times as many of each, rounded, but at least one user,
10 categories and as many items as categories. Each user's rows are in proportion to a gamma variable of shape
1.23, which gives about 86,000 users of 984,114 at least 210 clicks; they add up to n exactly.

**Process.** Each row is a click (`pv`) with probability 0.896, a user's first always; otherwise `cart`, `fav` or
`buy` on the item clicked last (0.055, 0.029, 0.020). Clicks are those of a `styled` world, with two differences: there
is no burn-in, and some one in twenty is on the next item of a random order, so that each item is clicked. Times are
uniform in the log's period and ascend within a user. Ids are a random choice from a range 1.03 times (users, ascending)
and 1.27 times (items and categories) as large as the number of ids. The first user is always `GENERATED_FIRST_USER`
(the published log begins with user 1), by which the reader recognises such a file and labels the log as generated.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numba
import numpy as np
import polars as pl
from tqdm import tqdm

from dare_core.data.readers import GENERATED_FIRST_USER, TAOBAO_FIELDS, TAOBAO_PERIOD
from dare_core.data.styled import UNIFORMS, Styled, next_styled
from dare_core.data.worlds import PAPER_ITEM_EXPONENT, Floats, Ints, StyledConfig, build_world
from dare_core.errors import InputError
from dare_core.files import atomic_path

PUBLISHED_ROWS = 100_000_000
PUBLISHED_USERS, PUBLISHED_ITEMS, PUBLISHED_CATEGORIES = 984_114, 4_068_790, 9_407
LENGTH_SHAPE = 1.23
IN_TURN = 0.9
"""Clicks between two that take the next item of an order: this part of the clicks per item, so that the order ends."""
BEHAVIOURS = ("pv", "cart", "fav", "buy")
BEHAVIOUR_SHARES = (0.896, 0.055, 0.029, 0.020)
USER_ID_RANGE, ITEM_ID_RANGE = 1.03, 1.27
USERS_PER_BLOCK = 10_000  # about a million rows


@dataclass(frozen=True)
class FileSize:
    """How much a generated file holds."""

    rows: int
    users: int
    items: int
    categories: int


def file_size(rows: int) -> FileSize:
    """Users, items and categories of a file of so many rows: in proportion to the published counts.

    Raises InputError for less than one row.

    >>> file_size(100_000_000)
    FileSize(rows=100000000, users=984114, items=4068790, categories=9407)
    """
    if rows < 1:
        raise InputError(f"a file of {rows} rows cannot be generated: give --rows a number of 1 or more.")

    def part(published: int, least: int) -> int:
        return max(round(published * rows / PUBLISHED_ROWS), least)

    categories = part(PUBLISHED_CATEGORIES, 10)
    return FileSize(rows, part(PUBLISHED_USERS, 1), part(PUBLISHED_ITEMS, categories), categories)


def write_taobao(path: Path, rows: int, seed: int = 1, users_per_block: int = USERS_PER_BLOCK) -> FileSize:
    """Write a generated log of so many rows in Taobao's format; same rows and seed, same bytes.

    Memory is bounded by what the world holds per user and item, and one block of users. The file appears when it is
    complete. Progress is shown on a terminal. Raises InputError where `path` is a folder or `rows` below 1.
    """
    size = file_size(rows)
    if path.is_dir():
        raise InputError(f"'{path}' is a folder: name the file to write.")
    with (
        atomic_path(path) as temporary,
        temporary.open("wb") as file,
        tqdm(total=rows, unit="rows", unit_scale=True, desc="generating", disable=None) as progress,
    ):
        for block in row_blocks(size, seed, users_per_block):
            block.write_csv(file, include_header=False)
            progress.update(block.height)
    return size


def row_blocks(size: FileSize, seed: int, users_per_block: int) -> Iterator[pl.DataFrame]:
    """The file's rows in blocks of users; the same rows whatever the size of a block."""
    ids, own, behaviours, times, clicks = (np.random.default_rng([seed, stream]) for stream in range(5))
    lengths = _rows_per_user(size, ids)
    user_ids = np.sort(_some_ids(size.users, USER_ID_RANGE, ids))
    user_ids += GENERATED_FIRST_USER - user_ids[0]
    item_ids = _some_ids(size.items, ITEM_ID_RANGE, ids)
    category_ids = ids.permutation(int(ITEM_ID_RANGE * size.items) + size.categories)[: size.categories] + 1
    default = StyledConfig()
    groups = max(round(default.groups * size.categories / default.categories), 1)
    world = build_world(
        StyledConfig(items=size.items, categories=size.categories, groups=groups, item_exponent=PAPER_ITEM_EXPONENT)
    )
    process, in_turn = Styled.of(world), own.permutation(size.items) + 1
    every, drawn = max(int(IN_TURN * BEHAVIOUR_SHARES[0] * size.rows / size.items), 1), 0
    period = TAOBAO_PERIOD[1] - TAOBAO_PERIOD[0]
    for first in range(0, size.users, users_per_block):
        some = slice(first, first + users_per_block)
        rows, start = lengths[some], np.cumsum(lengths[some]) - lengths[some]
        owner = np.repeat(np.arange(len(rows)), rows)
        behaviour = np.searchsorted(np.cumsum(BEHAVIOUR_SHARES[:-1]), behaviours.random(len(owner)), side="right")
        behaviour[start] = 0
        time = np.sort(owner * period + times.integers(period, size=len(owner))) - owner * period
        click = behaviour == 0
        items = np.empty(click.sum(), np.int64)
        uniform = clicks.random((len(items), UNIFORMS))
        clicks_per_user = np.add.reduceat(click, start, dtype=np.int64)
        _draw_clicks(process, clicks_per_user, uniform, in_turn, every, drawn, items)
        drawn += len(items)
        item = items[np.cumsum(click) - 1]
        yield pl.DataFrame(
            {
                "user": user_ids[some][owner],
                "item": item_ids[item - 1],
                "category": category_ids[world.item_category[item] - 1],
                "behaviour": pl.Series(behaviour, dtype=pl.UInt8).cat.to(pl.Enum(BEHAVIOURS)),
                "time": TAOBAO_PERIOD[0] + time,
            }
        ).select(TAOBAO_FIELDS)


@numba.njit(cache=True)
def _draw_clicks(
    process: Styled, clicks: Ints, uniform: Floats, in_turn: Ints, every: int, drawn: int, items: Ints
) -> None:
    """Fill `items`, so many of each user as `clicks` says, from `uniform` (items, 3); `drawn` were drawn before, and
    one in `every` is the next of the items `in_turn`."""
    first = 0
    for user in range(len(clicks)):
        for at in range(first, first + clicks[user]):
            turn, within = divmod(drawn + at, every)
            if within == 0:
                items[at] = in_turn[turn % len(in_turn)]
            else:
                items[at] = next_styled(process, items[first:at], uniform[at])
        first += clicks[user]


def _rows_per_user(size: FileSize, rng: np.random.Generator) -> Ints:
    """Rows of each user, at least 1, which add up to the file's."""
    weight = rng.gamma(LENGTH_SHAPE, size=size.users)
    end = np.rint(np.cumsum(weight) * ((size.rows - size.users) / weight.sum())).astype(np.int64)
    end[-1] = size.rows - size.users
    return np.diff(end, prepend=0) + 1


def _some_ids(count: int, wider: float, rng: np.random.Generator) -> Ints:
    """So many different ids from a range somewhat wider, in random order."""
    return rng.permutation(int(wider * count) + 1)[:count] + 1
