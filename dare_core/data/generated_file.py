"""Writes generated logs as raw files in the format of Taobao's `UserBehavior.csv`, at the published size.

Rows are `user,item,category,behaviour,timestamp` without a header, users one after another, oldest first. The
file is for measuring preparation and training at paper scale; the worlds of `dare_core.data.world`, whose true
relevance is known, are for findings.

**Size.** A file of 100 million rows has 984,114 users, 4,068,790 items and 9,407 categories among its clicks,
the published counts; a file of n rows has n / 10^8 times as many of each, rounded, but at least one user,
10 categories and as many items as categories. Each user's rows are in proportion to a gamma variable of shape
1.23, which gives about 86,000 users of 984,114 at least 210 clicks; they add up to n exactly.

**Process.** Each row is a click (`pv`) with probability 0.896, a user's first always; otherwise `cart`, `fav` or
`buy` on the item clicked last (0.055, 0.029, 0.020). Categories have the popularity P(c) proportional to
(rank + 7.4)^-1.356, and items in proportion to P(c), at least one. With the kernels k and shares of the twin
world (`WorldConfig`), the click after n others is

- with probability `repeat_share` the item at position p, p drawn from k_repeat (position 1 is the newest);
- with probability `continue_share` (1 - `related`) an item of the category at position p, p from k_continue;
- otherwise, and where p > n, an item of another category: with probability g = `interest_share` /
  (1 - `repeat_share` - `continue_share`) one of the user's 11 interests (drawn from P, the j-th chosen in
  proportion to 1 / j), else one drawn from P.

An item of a category is drawn with a density proportional to (rank + 3.91)^-`ITEM_EXPONENT`; but each category's
every 8th such draw takes its items in turn, so that each of them is clicked. The exponent, 0.85, was chosen by hand
of four so that the first 812 users of a file of the published size have about the item popularity of the real
log's head (`calibration.match`); nothing else was fitted. Times are uniform in the log's
period and ascend within a user. Ids are a random choice from a range 1.03 times (users, ascending) and 1.27 times
(items and categories) as large as the number of ids. The first user is always `GENERATED_FIRST_USER`
(the published log begins with user 1): by it the reader knows such a file, and labels the log as generated.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from dare_core.data.readers import GENERATED_FIRST_USER, TAOBAO_PERIOD
from dare_core.data.world import WorldConfig
from dare_core.errors import InputError
from dare_core.files import atomic_path

PUBLISHED_ROWS = 100_000_000
PUBLISHED_USERS, PUBLISHED_ITEMS, PUBLISHED_CATEGORIES = 984_114, 4_068_790, 9_407
LENGTH_SHAPE = 1.23
ITEM_EXPONENT = 0.85
IN_TURN = 8  # of a category's new items, each 8th is the next in turn
BEHAVIOURS = (b"pv", b"cart", b"fav", b"buy")
BEHAVIOUR_SHARES = (0.896, 0.055, 0.029, 0.020)
USER_ID_RANGE, ITEM_ID_RANGE = 1.03, 1.27
LONGEST_ROW = 64  # bytes, more than any row has
USERS_A_BLOCK = 10_000  # about a million rows
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class FileSize:
    """How much a generated file holds."""

    rows: int
    users: int
    items: int
    categories: int


def file_size(rows: int) -> FileSize:
    """Users, items and categories of a file of so many rows: in proportion to the published counts."""
    if rows < 1:
        raise InputError(f"a file of {rows} rows cannot be generated: give --rows a number of 1 or more.")

    def part(published: int, least: int) -> int:
        return max(round(published * rows / PUBLISHED_ROWS), least)

    categories = part(PUBLISHED_CATEGORIES, 10)
    return FileSize(rows, part(PUBLISHED_USERS, 1), part(PUBLISHED_ITEMS, categories), categories)


def write_taobao(path: Path, rows: int, seed: int = 1, users_a_block: int = USERS_A_BLOCK) -> FileSize:
    """Write a generated log of so many rows in Taobao's format; same rows and seed, same bytes.

    Memory is bounded by the ids and one block of users. The file appears when it is whole. Progress is shown
    on a terminal.
    """
    size = file_size(rows)
    if path.is_dir():
        raise InputError(f"'{path}' is a folder: name the file to write.")
    with (
        atomic_path(path) as temporary,
        temporary.open("wb") as file,
        tqdm(total=rows, unit="rows", unit_scale=True, desc="generating", disable=None) as progress,
    ):
        for block, written in _blocks(size, seed, users_a_block):
            file.write(block)
            progress.update(written)
    return size


def _blocks(size: FileSize, seed: int, users_a_block: int) -> Iterator[tuple[memoryview, int]]:
    """The file's bytes in blocks of users, with the number of rows of each."""
    rng = np.random.default_rng([seed, 0])
    lengths = _rows_of_users(size, rng)
    user_ids = np.sort(_some_ids(size.users, USER_ID_RANGE, rng))
    user_ids += GENERATED_FIRST_USER - user_ids[0]
    item_ids = _some_ids(size.items, ITEM_ID_RANGE, rng)
    category_ids = rng.permutation(int(ITEM_ID_RANGE * size.items) + size.categories)[: size.categories] + 1
    process = _process(size)
    drawn = np.zeros(size.categories, np.int64)
    clicks = np.random.default_rng([seed, 1])
    for first in range(0, size.users, users_a_block):
        some = slice(first, first + users_a_block)
        written = int(lengths[some].sum())
        text = np.empty(written * LONGEST_ROW, np.uint8)
        used = _write_users(user_ids[some], lengths[some], item_ids, category_ids, drawn, clicks, text, *process)
        yield memoryview(text[:used].data), written


def _rows_of_users(size: FileSize, rng: np.random.Generator) -> Ints:
    """Rows of each user, at least 1, which add up to the file's."""
    weight = rng.gamma(LENGTH_SHAPE, size=size.users)
    end = np.rint(np.cumsum(weight) * ((size.rows - size.users) / weight.sum())).astype(np.int64)
    end[-1] = size.rows - size.users
    return np.diff(end, prepend=0) + 1


def _some_ids(count: int, wider: float, rng: np.random.Generator) -> Ints:
    """So many different ids from a range somewhat wider, in random order."""
    return rng.permutation(int(wider * count) + 1)[:count] + 1


def _process(size: FileSize) -> tuple[Any, ...]:
    """The constants of the process, as the compiled loop takes them."""
    c = WorldConfig()
    popularity = (np.arange(1, size.categories + 1) + c.category_shift) ** -c.category_exponent
    popularity /= popularity.sum()
    steps = np.rint((size.items - size.categories) * np.cumsum(popularity)).astype(np.int64)
    first_item = np.concatenate([[0], steps + np.arange(1, size.categories + 1)])  # of each category; one more
    return (
        np.cumsum(popularity),
        first_item,
        np.cumsum(c.repeat_kernel.values()),
        np.cumsum(c.continue_kernel.values()),
        np.array([c.repeat_share, c.repeat_share + c.continue_share * (1 - c.related)]),
        c.interest_share / (1 - c.repeat_share - c.continue_share),
        np.cumsum(1 / np.arange(1, c.interests + 1)),
        c.item_shift,
        np.cumsum(BEHAVIOUR_SHARES),
        np.array([name.ljust(4, b"\0") for name in BEHAVIOURS], "S4").view(np.uint8).reshape(-1, 4),
    )


@numba.njit(cache=True)
def _pick(cumulative: Floats, uniform: float) -> int:
    """Index drawn with the weights of a cumulative sum; `uniform` in [0, 1)."""
    found = np.searchsorted(cumulative, uniform * cumulative[-1], side="right")
    return min(found, len(cumulative) - 1)


@numba.njit(cache=True)
def _write_number(text: NDArray[np.uint8], at: int, number: int) -> int:
    """Write decimal digits at a place; returns the place after them."""
    length, rest = 1, number // 10
    while rest:
        length, rest = length + 1, rest // 10
    for place in range(at + length - 1, at - 1, -1):
        text[place] = 48 + number % 10
        number //= 10
    return at + length


@numba.njit(cache=True)
def _write_users(
    users: Ints,
    lengths: Ints,
    item_ids: Ints,
    category_ids: Ints,
    drawn: Ints,
    rng: np.random.Generator,
    text: NDArray[np.uint8],
    popularity: Floats,
    first_item: Ints,
    repeat_kernel: Floats,
    continue_kernel: Floats,
    shares: Floats,
    own_interest: float,
    interest_weights: Floats,
    item_shift: float,
    behaviour_shares: Floats,
    behaviour_names: NDArray[np.uint8],
) -> int:
    """Draw the rows of some users and write them into `text`; returns the bytes used. `drawn` counts new items."""
    at = 0
    longest = lengths.max()
    items, categories = np.empty(longest, np.int64), np.empty(longest, np.int64)
    times = np.empty(longest + 1)
    interests = np.empty(len(interest_weights), np.int64)
    power = 1 - ITEM_EXPONENT
    low = item_shift**power
    for index in range(len(users)):
        rows = lengths[index]
        for j in range(len(interests)):
            interests[j] = _pick(popularity, rng.random())
        total = 0.0
        for row in range(rows + 1):  # normalised sums of exponential gaps are sorted uniform times
            total -= np.log1p(-rng.random())
            times[row] = total
        clicks = 0
        for row in range(rows):
            behaviour = _pick(behaviour_shares, rng.random()) if row else 0
            if behaviour == 0:
                part, uniform = rng.random(), rng.random()
                item, category = -1, -1
                if part < shares[0]:
                    source = clicks - 1 - _pick(repeat_kernel, uniform)
                    if source >= 0:
                        item, category = items[source], categories[source]
                elif part < shares[1]:
                    source = clicks - 1 - _pick(continue_kernel, uniform)
                    if source >= 0:
                        category = categories[source]
                if category < 0:
                    if rng.random() < own_interest:
                        category = interests[_pick(interest_weights, rng.random())]
                    else:
                        category = _pick(popularity, rng.random())
                if item < 0:
                    first, count = first_item[category], first_item[category + 1] - first_item[category]
                    if drawn[category] % IN_TURN == 0:
                        rank = drawn[category] // IN_TURN % count
                    else:  # the inverse of the cumulative density
                        high = (count + item_shift) ** power
                        rank = int((low + rng.random() * (high - low)) ** (1 / power) - item_shift)
                    drawn[category] += 1
                    item = first + min(max(rank, 0), count - 1)
                items[clicks], categories[clicks] = item, category
                clicks += 1
            at = _write_number(text, at, users[index])
            text[at] = 44
            at = _write_number(text, at + 1, item_ids[items[clicks - 1]])
            text[at] = 44
            at = _write_number(text, at + 1, category_ids[categories[clicks - 1]])
            text[at] = 44
            at += 1
            for letter in behaviour_names[behaviour]:
                if letter:
                    text[at] = letter
                    at += 1
            text[at] = 44
            seconds = int((TAOBAO_PERIOD[1] - TAOBAO_PERIOD[0]) * times[row] / total)
            at = _write_number(text, at + 1, TAOBAO_PERIOD[0] + seconds)
            text[at] = 10
            at += 1
    return at
