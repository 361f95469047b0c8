"""Samples: which targets are predicted from which histories, with which negatives.

Each click of a log is stored once. A sample names a row of the log as its positive target; its history is
the rows before it, gathered by index when a batch is made, never copied.
"""

from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, Literal

import numba
import numpy as np
import torch
from torch import Tensor

from dare_core.config import SampleConfig
from dare_core.data.logs import Log, load_times, shortest_user_error
from dare_core.errors import InputError

SPLITS = ("train", "validation", "test")
NEVER = np.iinfo(np.int64).max
"""Row of a first click that does not exist: beyond every row."""
DRAWN_USERS = 0x05E4
"""Seed of the users that `most_samples` keeps: the same for all models and training seeds."""
Side = Literal["target", "behaviour"]


@dataclass(frozen=True)
class Batch:
    """H histories with C candidate targets each; the first candidate is the clicked item, unless `clicked` says more.

    Histories are left-padded with 0, newest last: column j has position N - j, position 1 is the newest.
    """

    target_items: Tensor  # (H, C)
    target_categories: Tensor  # (H, C)
    history_items: Tensor  # (H, N)
    history_categories: Tensor  # (H, N)
    clicked: Tensor | None = field(default=None, kw_only=True)  # (H, C) true for clicked candidates

    @cached_property
    def valid(self) -> Tensor:
        """(H, N) true where there is a behaviour, false at padding."""
        return self.history_items != 0

    @cached_property
    def positions(self) -> dict[Side, Tensor]:
        """(1,) the target's and (N,) the behaviours'."""
        device = self.history_items.device
        numbers = torch.arange(self.history_items.shape[1], -1, -1, device=device)
        return {"target": numbers[-1:], "behaviour": numbers[:-1]}


@dataclass(frozen=True)
class Clicks:
    """A log as tensors, rows contiguous by user, oldest first."""

    items: Tensor  # (rows,) int32
    categories: Tensor  # (rows,) int32

    def to(self, device: torch.device) -> "Clicks":
        """These clicks on a device."""
        return Clicks(self.items.to(device), self.categories.to(device))


@dataclass(frozen=True)
class Samples:
    """H targets of one split, with C candidates each: the clicked item, then the negatives."""

    clicks: Clicks
    history: int
    users: Tensor  # (H,) number of the user in the log
    row: Tensor  # (H,) row of the clicked target in the log
    start: Tensor  # (H,) first row of its user
    items: Tensor  # (H, C)
    categories: Tensor  # (H, C)
    new: Tensor  # (H, C) true where the user had not clicked the item anywhere before the target
    seen: Tensor  # (H, C) true where the item occurs in the training samples, as a candidate or in a history
    clicked: Tensor | None = None  # (H, C) true for clicked candidates, where that is not the first alone

    def __len__(self) -> int:
        return len(self.row)

    def on(self, clicks: Clicks) -> "Samples":
        """These samples on the device of `clicks`, which must be a copy of their own clicks."""
        moved: dict[str, Any] = {"clicks": clicks}
        for part in fields(self):
            if isinstance(value := getattr(self, part.name), Tensor):
                moved[part.name] = value.to(clicks.items.device)
        return replace(self, **moved)

    def singles(self) -> "Samples":
        """These samples with one candidate each: H times C of them, a click followed by its negatives."""
        owner = torch.arange(len(self), device=self.row.device).repeat_interleave(self.items.shape[1])
        alone = {name: getattr(self, name).reshape(-1, 1) for name in ("items", "categories", "new", "seen")}
        clicked = torch.from_numpy(self.labels).bool().reshape(-1, 1).to(self.row.device)
        owned = {name: getattr(self, name)[owner] for name in ("users", "row", "start")}
        return replace(self, **owned, **alone, clicked=clicked)

    @property
    def size(self) -> int:
        """Number of samples as the paper counts them: targets and negatives."""
        return self.items.numel()

    @property
    def labels(self) -> np.ndarray:
        """(H, C) 1 for the clicked candidate."""
        if self.clicked is not None:
            return self.clicked.cpu().numpy().astype(np.int8)
        labels = np.zeros(self.items.shape, np.int8)
        labels[:, 0] = 1
        return labels

    def batch(self, index: Tensor | slice) -> Batch:
        """The batch of some of the targets, by their index (shapes as in `Batch`)."""
        row = self.row[index].unsqueeze(1) + torch.arange(-self.history, 0, device=self.row.device)
        padding = row < self.start[index].unsqueeze(1)
        row = row.clamp_(min=0)
        return Batch(
            self.items[index],
            self.categories[index],
            self.clicks.items[row].masked_fill_(padding, 0),
            self.clicks.categories[row].masked_fill_(padding, 0),
            clicked=None if self.clicked is None else self.clicked[index],
        )


Rows = tuple[np.ndarray, np.ndarray]
"""Rows of targets in the log (H,), and their users (H,)."""


def target_rows(log: Log, config: SampleConfig) -> dict[str, Rows]:
    """Rows and users of the targets of each split; a target needs at least one click before it.

    Of a user's clicks, counted from the end, the last is the test target, the second to last validation, and training
    the 3rd, 8th, 13th, … (published protocol). With `split` time, the test target is a user's last click in the last
    tenth of the log's time, validation the last one in the tenth before, and training counts from the last click
    before that. With negatives of rule `shown`, targets with fewer of them are left out.
    """
    lengths = np.diff(log.offsets)
    users = np.flatnonzero(lengths >= config.shortest_user)
    if not len(users):
        raise shortest_user_error(log, config.shortest_user)
    validation, test = split_ends(log, config.split)
    train = validation[users][:, None] - 1 - config.spacing * np.arange(config.targets)
    enough = usable(log, config, train, users[:, None])
    if config.most_samples:
        order = np.random.default_rng(DRAWN_USERS).permutation(len(users))
        samples = np.cumsum(enough[order].sum(1)) * (1 + config.negatives)
        order = np.sort(order[: max(1, np.searchsorted(samples, config.most_samples, side="right"))])
        users, train, enough = users[order], train[order], enough[order]
    found = {"train": (train[enough], np.broadcast_to(users[:, None], train.shape)[enough])}
    for split, start, end in (("validation", validation, test), ("test", test, log.offsets[1:])):
        last = end[users] - 1
        kept = (last >= start[users]) & usable(log, config, last, users)
        found[split] = (last[kept], users[kept])
    if empty := [split for split, (rows, _) in found.items() if not len(rows)]:
        raise InputError(
            f"log '{log.card.name}' gives no {empty[0]} target: users need a click before it"
            + (", and clicks in each part of the time." if config.split == "time" else ".")
        )
    return found


def usable(log: Log, config: SampleConfig, rows: np.ndarray, users: np.ndarray) -> np.ndarray:
    """Which rows can be targets of their users (the two broadcast): those with a click before them and, with
    negatives of rule `shown`, enough items that were shown."""
    known = rows > log.offsets[users]
    if config.negative_rule == "shown":
        if log.shown is None or log.shown.shape[1] < config.negatives:
            most = 0 if log.shown is None else log.shown.shape[1]
            raise InputError(
                f"negatives: log '{log.card.name}' keeps {most} items per click that were shown and not clicked: "
                f"take at most so many, or prepare it with the column that says what was clicked."
            )
        known &= log.shown[np.where(known, rows, 0), config.negatives - 1] > 0
    return known


def split_ends(log: Log, split: Literal["user", "time"]) -> tuple[np.ndarray, np.ndarray]:
    """(users,) first row of each user's validation part, and of its test part."""
    if split == "user":
        return log.offsets[1:] - 2, log.offsets[1:] - 1
    times = load_times(log)
    if times is None:
        raise InputError(f"log '{log.card.name}' has no times: split it by user, or prepare it with its time column.")
    parts = []
    for moment in np.quantile(times, (0.8, 0.9), method="higher"):
        before = np.concatenate([[0], np.cumsum(times < moment)])
        parts.append(log.offsets[:-1] + np.diff(before[log.offsets]))
    return parts[0], parts[1]


def first_clicks(log: Log, users: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Row of the log in which a user first clicked an item, for pairs (n,) of both; `NEVER` where there is none."""
    return _first_rows(log.items, log.offsets, users, items)


@numba.njit(cache=True)
def _first_rows(clicked: np.ndarray, offsets: np.ndarray, users: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Scans the user's clicks for each pair: less work than sorting those of all users, and no memory."""
    first = np.full(len(users), NEVER)
    for pair in range(len(users)):
        for row in range(offsets[users[pair]], offsets[users[pair] + 1]):
            if clicked[row] == items[pair]:
                first[pair] = row
                break
    return first


def draw_negatives(
    users: np.ndarray,
    count: int,
    probability: np.ndarray,
    unclicked: Log | None,
    generator: np.random.Generator,
    within: tuple[np.ndarray, np.ndarray] | None = None,
) -> np.ndarray:
    """Negatives (H, count): `count` items for each of `users` (H,), drawn with `probability` (items + 1,).

    Where a log is given as `unclicked`, an item that its user has clicked in it is drawn again. `within`: the group of
    each target (H,) and of each item (items + 1,); negatives are of the target's group. Raises InputError where a user
    has clicked (nearly) all items that can be drawn.
    """
    order = np.arange(len(probability)) if within is None else np.argsort(within[1], kind="stable")
    cumulative = np.cumsum(probability[order])
    cumulative /= cumulative[-1]
    first, stop = np.zeros(len(users) * count, np.int64), np.full(len(users) * count, len(order))
    if within is not None:
        first, stop = (
            np.searchsorted(within[1][order], np.repeat(within[0], count), side) for side in ("left", "right")
        )
    low, high = np.where(first > 0, cumulative[first - 1], 0.0), cumulative[stop - 1]
    owner = np.repeat(users, count)

    def draw(which: np.ndarray | slice) -> np.ndarray:
        uniform = generator.random(len(low[which]))
        found = np.searchsorted(cumulative, low[which] + uniform * (high - low)[which], side="right")
        return order[np.minimum(found, stop[which] - 1)].astype(np.int32)

    items = draw(slice(None))
    if unclicked is None:
        return items.reshape(-1, count)
    redo = np.arange(len(owner))
    for _ in range(1_000):
        clicked = first_clicks(unclicked, owner[redo], items[redo]) < NEVER
        redo = redo[clicked]
        if not len(redo):
            return items.reshape(-1, count)
        items[redo] = draw(redo)
    raise everything_clicked(unclicked, np.unique(owner[redo]))


def everything_clicked(log: Log, users: np.ndarray) -> InputError:
    """The error for users who have clicked nearly every item that a negative could be."""
    fewest = int(np.diff(log.offsets)[users].min())
    largest = log.card.checks.get("largest user")
    named = f" ({largest})" if largest else ""
    several = "1 user has" if len(users) == 1 else f"{len(users):,} users have"
    return InputError(
        f"{several} clicked nearly every item that a negative could be{named}: leave out users with so many rows when "
        f"the file is read (--longest-user {fewest - 1}), or use negative_rule any, which changes the task for all."
    )


def item_counts(log: Log, until: np.ndarray | None = None) -> np.ndarray:
    """Clicks of every item (items + 1,); with `until` (users,), only those on rows before it."""
    counts = np.zeros(log.card.items + 1, np.int64)
    _count(log.items, log.offsets[:-1], log.offsets[1:] if until is None else until, counts)
    return counts


@numba.njit(cache=True)
def _count(items: np.ndarray, start: np.ndarray, stop: np.ndarray, counts: np.ndarray) -> None:
    """Add the items of rows start to stop of each user to `counts`."""
    for user in range(len(start)):
        for row in range(start[user], stop[user]):
            counts[items[row]] += 1


def training_counts(log: Log, split: Literal["user", "time"] = "user") -> np.ndarray:
    """Clicks of every item (items + 1,) before each user's validation and test parts."""
    return item_counts(log, split_ends(log, split)[0])


def make_samples(log: Log, config: SampleConfig, seed: int) -> dict[str, Samples]:
    """The samples of a log's splits `train`, `validation` and `test`. The seed decides the negatives only.

    An item is drawn as a negative with a probability in proportion to its clicks (a generated log gives its true
    probabilities instead, because counts taken from the log tell which items its users clicked). Raises InputError
    where no user has as many clicks as `config` demands, or no negative can be drawn for one.
    """
    rows = target_rows(log, config)
    if log.item_probability is not None:
        probability = log.item_probability
    else:
        counts = item_counts(log) if config.negative_counts == "log" else training_counts(log, config.split)
        probability = counts.astype(np.float64)
    generator = np.random.default_rng([seed, 0xDA7A])
    items = {
        split: np.concatenate(
            [log.items[row][:, None], negatives_of(log, config, row, users, probability, generator)], 1
        )
        for split, (row, users) in rows.items()
    }

    clicks = Clicks(torch.from_numpy(log.items), torch.from_numpy(log.categories))
    seen = seen_items(log, config, rows["train"], items["train"])
    splits: dict[str, Samples] = {}
    for split, (row, users) in rows.items():
        categories = log.item_category[items[split]]
        categories[:, 0] = log.categories[row]
        first = first_clicks(log, np.repeat(users, items[split].shape[1]), items[split].ravel())
        splits[split] = Samples(
            clicks,
            config.history,
            torch.from_numpy(users.copy()),
            torch.from_numpy(row.copy()),
            torch.from_numpy(log.offsets[users]),
            torch.from_numpy(items[split]),
            torch.from_numpy(categories),
            torch.from_numpy(first.reshape(items[split].shape) >= row[:, None]),
            torch.from_numpy(seen[items[split]]),
        )
    return splits


def negatives_of(
    log: Log,
    config: SampleConfig,
    row: np.ndarray,
    users: np.ndarray,
    probability: np.ndarray,
    generator: np.random.Generator,
) -> np.ndarray:
    """Negatives (H, count) of targets: drawn, or what was shown."""
    if config.negative_rule == "shown" and log.shown is not None:
        return log.shown[row, : config.negatives]
    within = None
    if config.negatives_within:
        if log.item_group is None:
            raise InputError(f"log '{log.card.name}' has no groups of items: prepare it with the column of groups.")
        within = (log.item_group[log.items[row]], log.item_group)
    unclicked = log if config.negative_rule == "unclicked" else None
    return draw_negatives(users, config.negatives, probability, unclicked, generator, within)


def seen_items(log: Log, config: SampleConfig, targets: tuple[np.ndarray, np.ndarray], items: np.ndarray) -> np.ndarray:
    """(items + 1,) true for items that occur in the training samples, as a candidate or in a history.

    `targets` are rows and users of the training targets, `items` (H, C) their candidates.
    """
    row, users = targets
    first = np.maximum(row - config.history, log.offsets[users])
    seen = np.zeros(log.card.items + 1, bool)
    _mark(log.items, np.sort(first), np.sort(row), seen)  # the later the target, the later its history starts
    seen[items] = True
    return seen


@numba.njit(cache=True)
def _mark(items: np.ndarray, start: np.ndarray, stop: np.ndarray, seen: np.ndarray) -> None:
    """Mark the items of rows start to stop, both ascending; rows in several such ranges are visited once."""
    done = 0
    for part in range(len(start)):
        for row in range(max(start[part], done), stop[part]):
            seen[items[row]] = True
        done = stop[part]
