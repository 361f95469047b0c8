"""Styled worlds, in which items matter: the sampler, and the best possible score of a candidate.

`dare_core.data.worlds` states the random process. Everything follows from labels of the items at five levels: the item
itself, its style, its category, its category's group, and one label for all (`rest`).
"""

from typing import NamedTuple

import numba
import numpy as np
from tqdm import tqdm

from dare_core.data.worlds import REACH, Floats, Ints, StyledConfig, World, item_ids

UNIFORMS = 3
"""Uniform numbers that decide one click."""
USERS_PER_BLOCK = 10_000
"""Users whose random numbers are in memory at a time."""
REST = 4
"""The level of all items."""
CERTAIN = 1e3
"""Score of a candidate that must have been clicked: above all others."""


class Members(NamedTuple):
    """Members of groups, from which one is drawn in proportion to its weight; groups are small whole numbers."""

    order: Ints  # members by group
    cumulative: Floats  # (members + 1,) sum of the weights before each place of `order`
    start: Ints  # (groups + 1,) first place of each group

    @classmethod
    def of(cls, group: Ints, weight: Floats) -> "Members":
        """From each member's group and weight."""
        order = np.argsort(group, kind="stable")
        start = np.searchsorted(group[order], np.arange(group.max() + 2))
        return cls(order, np.concatenate([[0.0], np.cumsum(weight[order])]), start)

    def draw(self, group: Ints, uniform: Floats) -> Ints:
        """One member of each given group; `uniform` in [0, 1) decides which."""
        drawn = np.empty(group.size, np.int64)
        _draw_members(self, group.ravel(), uniform.ravel(), drawn)
        return drawn.reshape(group.shape)


@numba.njit(cache=True)
def _draw_members(members: Members, group: Ints, uniform: Floats, drawn: Ints) -> None:
    for i in range(len(group)):
        drawn[i] = member(members, group[i], uniform[i])


@numba.njit(cache=True)
def member(members: Members, group: int, uniform: float) -> int:
    first, stop = members.start[group], members.start[group + 1]
    low, high = members.cumulative[first], members.cumulative[stop]
    sums = members.cumulative[first : stop + 1]
    place = first + np.searchsorted(sums, low + uniform * (high - low), side="right") - 1
    return members.order[min(max(place, first), stop - 1)]


def cumulative(weights: Floats) -> Floats:
    """Cumulative distribution whose last value is exactly 1, so that no uniform number lies beyond it."""
    total = np.cumsum(weights)
    return total / total[-1]


class Styled(NamedTuple):
    """The process of one styled world, as the compiled functions take it. Levels are counted from 0, the item."""

    shares: Floats  # (5,) cumulative, by level
    kernels: Floats  # (4, 200) cumulative
    labels: Ints  # (5, items + 1) each item's label at every level
    members: tuple[Members, ...]  # items of each label, by level; those of the item itself are not drawn

    @classmethod
    def of(cls, world: World) -> "Styled":
        """The process of a world."""
        c = world.config
        assert isinstance(c, StyledConfig)
        labels = labels_of(world)
        probability = world.item_probability
        of_label = tuple(Members.of(label, probability) for label in labels[1:])
        kernels = np.stack([cumulative(kernel.values()) for kernel in c.kernels])
        return cls(cumulative(np.array([*c.shares, 1 - sum(c.shares)])), kernels, labels, (of_label[0], *of_label))


def labels_of(world: World) -> Ints:
    """(5, items + 1) labels of the items by level: item, style, category, group, and 0 for all."""
    category = world.item_category
    return np.stack([np.arange(len(category)), world.style, category, world.group[category], np.zeros_like(category)])


@numba.njit(cache=True)
def next_styled(world: Styled, clicked: Ints, uniform: Floats) -> int:
    """The item that a user clicks after the items `clicked`, oldest first; `uniform` (3,) in [0, 1) decides."""
    level = np.searchsorted(world.shares, uniform[0], side="right")
    label = 0
    if level < REST:
        back = np.searchsorted(world.kernels[level], uniform[1], side="right") + 1
        if back > len(clicked):
            level = REST
        else:
            source = clicked[len(clicked) - back]
            if level == 0:
                return source
            label = world.labels[level, source]
    return member(world.members[level], label, uniform[2])


@numba.njit(cache=True)
def _draw_users(world: Styled, first: Ints, uniform: Floats, items: Ints) -> None:
    """Fill `items`: clicks first[u] to first[u + 1] are those of user u."""
    for user in range(len(first) - 1):
        for at in range(first[user], first[user + 1]):
            items[at] = next_styled(world, items[first[user] : at], uniform[at])


def draw_styled(world: World, lengths: Ints, rng: np.random.Generator) -> Ints:
    """Items of all clicks, users one after another; 200 clicks of burn-in are drawn for each and left out.

    Shows progress on a terminal where there are many.
    """
    process, blocks = Styled.of(world), []
    many = None if len(lengths) > USERS_PER_BLOCK else True
    with tqdm(total=int(lengths.sum()), unit=" clicks", unit_scale=True, desc="generating", disable=many) as progress:
        for start in range(0, len(lengths), USERS_PER_BLOCK):
            clicks = lengths[start : start + USERS_PER_BLOCK] + REACH
            first = np.concatenate([[0], np.cumsum(clicks)])
            items = np.empty(first[-1], np.int64)
            _draw_users(process, first, rng.random((len(items), UNIFORMS)), items)
            kept = np.arange(len(items)) - np.repeat(first[:-1], clicks) >= REACH
            blocks.append(items[kept])
            progress.update(len(blocks[-1]))
    return np.concatenate(blocks)


class Oracle:
    """What can be known about the next click in a styled world from a user's last 200 clicks, and no more.

    Items are numbered as in the world's log.
    """

    def __init__(self, world: World) -> None:
        c = world.config
        assert isinstance(c, StyledConfig)
        ids = item_ids(c)
        self.probability = np.zeros(len(ids))
        self.probability[ids] = world.item_probability
        self.labels = np.zeros((REST, len(ids)), np.int64)
        self.labels[:, ids] = labels_of(world)[:REST]
        self.within = np.ones((REST, len(ids)))  # P(i) / P(label of i), 1 for the item itself
        for level in range(1, REST):
            label = self.labels[level]
            of_label = np.bincount(label, weights=self.probability)
            self.within[level] = self.probability / np.maximum(of_label[label], 1e-300)
        self.shares = np.array([*c.shares, 1 - sum(c.shares)])
        self.kernels = np.stack([kernel.values() for kernel in c.kernels])

    def click_probability(self, history: Ints, items: Ints) -> Floats:
        """Probability (H, C) that the next click is each of some items, given histories (H, N), oldest first.

        0 is padding: nothing was clicked before. Exact where a history holds the user's last 200 clicks.
        """
        found = np.empty(items.shape)
        _probabilities(self.shares, self.kernels, self.labels, self.within, self.probability, history, items, found)
        return found

    def score(self, history: Ints, items: Ints) -> Floats:
        """The best possible score (H, C) of candidates that were clicked or drawn as negatives: log p(t) - log q(t).

        p is `click_probability`; q the probability that t is drawn as a negative, which is in proportion to P(t) for
        items that are neither in the history nor the clicked one. So an item of the history is a certain click: its
        score is `CERTAIN`.
        """
        clicked = self.click_probability(history, items)
        free = np.empty(len(history))
        _unclicked(self.probability, history, free)
        with np.errstate(divide="ignore"):
            score = np.log(clicked) - np.log(self.probability[items]) + np.log(free)[:, None] - np.log1p(-clicked)
        score[(items[:, :, None] == history[:, None, :]).any(-1)] = CERTAIN
        return score


@numba.njit(cache=True)
def _probabilities(
    shares: Floats,
    kernels: Floats,
    labels: Ints,
    within: Floats,
    probability: Floats,
    history: Ints,
    items: Ints,
    found: Floats,
) -> None:
    """Fill `found` (H, C): see `Oracle.click_probability`. Here `shares` and `kernels` are not cumulative."""
    for row in range(len(items)):
        for column in range(items.shape[1]):
            item, same, known = items[row, column], np.zeros(REST), np.zeros(REST)
            for back in range(1, min(history.shape[1], kernels.shape[1]) + 1):
                behaviour = history[row, history.shape[1] - back]
                if behaviour == 0:
                    break
                for level in range(REST):
                    known[level] += kernels[level, back - 1]
                    if labels[level, behaviour] == labels[level, item]:
                        same[level] += kernels[level, back - 1]
            rest, total = shares[REST], 0.0
            for level in range(REST):
                total += shares[level] * same[level] * within[level, item]
                rest += shares[level] * (1.0 - known[level])
            found[row, column] = total + rest * probability[item]


@numba.njit(cache=True)
def _unclicked(probability: Floats, history: Ints, free: Floats) -> None:
    """Fill `free` (H,) with the probability of all items that are not in the history."""
    for row in range(len(history)):
        free[row] = 1.0
        items = np.unique(history[row])
        for item in items:
            free[row] -= probability[item]
