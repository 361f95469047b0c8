"""Draws the logs of generated worlds; `dare_core.data.worlds` states their random processes."""

import hashlib
from typing import NamedTuple

import numba
import numpy as np
import polars as pl

from dare_core.data.logs import Card, Log, find, store_log
from dare_core.data.styled import Members, cumulative, draw_styled, member
from dare_core.data.worlds import (
    REACH,
    AnyWorld,
    Floats,
    Ints,
    StyledConfig,
    World,
    WorldConfig,
    build_world,
    item_ids,
    world_config,
)
from dare_core.files import canonical_json, short_hash

PROCESS = 1
"""Version of the random process, part of a stored log's name: raise it when a configuration gives other clicks."""
SOURCE = "dare_core.data.generated"
"""Source in the card of a generated log, by which `world_of` recognises it."""
UNIFORMS = 7
"""Uniform numbers that decide one click of the twin."""


class Twin(NamedTuple):
    """The twin's process for one world, as the compiled functions take it."""

    popularity: Floats  # cumulative P(c)
    item_category: Ints
    of_category: Members  # items
    of_group: Members  # categories
    group: Ints
    repeat_kernel: Floats  # cumulative
    continue_kernel: Floats  # cumulative
    interest_weight: Floats  # cumulative
    own_interest: float  # the text's g
    related: float

    @classmethod
    def of(cls, world: World) -> "Twin":
        """The process of a world."""
        c = world.config
        assert isinstance(c, WorldConfig)
        return cls(
            cumulative(world.category_probability),
            world.item_category,
            Members.of(world.item_category, world.item_share),
            Members.of(world.group, world.category_probability),
            world.group,
            cumulative(c.repeat_kernel.values()),
            cumulative(c.continue_kernel.values()),
            cumulative(1.0 / np.arange(1, c.interests + 1)),
            c.interest_share / (1 - (c.repeat_share + c.continue_share)),
            c.related,
        )


class Users(NamedTuple):
    """What is each user's own in the twin's process."""

    interests: Ints  # (users, interests) categories
    repeat: Floats  # (users,) share of repeated items
    past: Floats  # (users,) the same and the share of continued categories


def draw_users(world: World, users: int, rng: np.random.Generator) -> Users:
    """Interests and shares of so many users."""
    c = world.config
    assert isinstance(c, WorldConfig)
    past_share = c.repeat_share + c.continue_share
    uniform = rng.random((users, c.interests))
    interests = np.searchsorted(cumulative(world.category_probability), uniform, side="right")
    mean = np.array([c.repeat_share, c.continue_share, 1 - past_share])
    repeat, past = rng.dirichlet(c.alikeness * np.maximum(mean, 1e-9), users).T[:2].cumsum(axis=0)
    return Users(interests, repeat, past)


@numba.njit(cache=True)
def next_item(twin: Twin, users: Users, user: int, clicked: Ints, uniform: Floats) -> int:
    """The item that a user clicks after the items `clicked`, oldest first; `uniform` (7,) in [0, 1) decides."""
    part, moved, fresh, which, base, position, again = uniform
    t = len(clicked)
    repeats = part < users.repeat[user]
    kernel = twin.repeat_kernel if repeats else twin.continue_kernel
    p = np.searchsorted(kernel, position, side="right") + 1
    if part < users.past[user] and p <= t:
        source = clicked[t - p]
        if repeats:
            return source
        category = twin.item_category[source]
        if moved < twin.related:
            category = member(twin.of_group, twin.group[category], which)
    elif base < twin.own_interest:
        category = users.interests[user, np.searchsorted(twin.interest_weight, which, side="right")]
    else:
        category = np.searchsorted(twin.popularity, which, side="right")
    item = member(twin.of_category, category, fresh)
    known = False
    for before in range(max(t - REACH, 0), t):
        known |= clicked[before] == item  # without a way out of the loop, so that it is vectorised
    return member(twin.of_category, category, again) if known else item


@numba.njit(cache=True)
def _next_items(twin: Twin, users: Users, items: Ints, t: int, uniform: Floats) -> None:
    """Column `t` of `items` (users, clicks) from the columns before it and `uniform` (7, users)."""
    for user in range(len(items)):
        items[user, t] = next_item(twin, users, user, items[user, :t], uniform[:, user])


def _twin_items(world: World, rng: np.random.Generator) -> Ints:
    """Items (users, longest) of the twin, drawn click by click for all users at once."""
    c = world.config
    twin, users = Twin.of(world), draw_users(world, c.users, rng)
    items = np.zeros((c.users, REACH + c.longest), np.int64)
    for t in range(items.shape[1]):
        _next_items(twin, users, items, t, rng.random((UNIFORMS, c.users)))
    return items[:, REACH:]


def _no_semantics_items(world: World, rng: np.random.Generator) -> Ints:
    """Items (users, longest) of the world in which only the hidden themes continue."""
    c = world.config
    assert isinstance(c, WorldConfig)
    has_themes = np.zeros(c.categories + 1, bool)
    has_themes[world.item_category[world.theme >= 0]] = True
    of_theme = Members.of(world.item_category * (c.themes + 1) + world.theme + 1, world.item_share)
    popularity = cumulative(world.category_probability)
    kernel = cumulative(c.continue_kernel.values())
    themes = np.zeros((REACH + c.longest, c.users), np.int64)
    items = np.zeros_like(themes)
    for t in range(len(themes)):
        part, position, fresh, which = rng.random((4, c.users))
        p = np.searchsorted(kernel, position, side="right") + 1
        continues = (part < c.theme_continue) & (p <= t)
        before = themes[np.maximum(t - p, 0), np.arange(c.users)]
        themes[t] = np.where(continues, before, rng.integers(c.themes, size=c.users))
        category = np.searchsorted(popularity, which, side="right")
        items[t] = of_theme.draw(category * (c.themes + 1) + np.where(has_themes[category], themes[t] + 1, 0), fresh)
    return items[REACH:].T


def draw_items(world: World) -> tuple[Ints, Ints, Floats]:
    """Items of all clicks (users one after another), clicks per user, and the items' marginal probability."""
    c = world.config
    rng = np.random.default_rng([c.world_seed, 1])
    span = c.longest + 1 - c.shortest
    uniform = rng.random(c.users) * -np.expm1(-span / c.length_scale)
    lengths = c.shortest + np.minimum((-c.length_scale * np.log1p(-uniform)).astype(np.int64), span - 1)
    if isinstance(c, StyledConfig):
        return draw_styled(world, lengths, rng), lengths, world.item_probability
    of_category = Members.of(world.item_category, world.item_share)
    probability, share = world.category_probability, world.item_share
    shape = (c.longest, c.users)
    if c.kind == "twin":
        items = _twin_items(world, rng)
    elif c.kind == "no_semantics":
        items = _no_semantics_items(world, rng)
        themed = world.theme >= 0
        key = world.item_category * c.themes + world.theme
        of_theme = np.bincount(key[themed], weights=share[themed], minlength=key.max() + 1)
        share = share.copy()
        share[themed] /= of_theme[key[themed]] * c.themes
    elif c.kind == "no_decay":
        theta = rng.dirichlet(c.concentration * probability[1:], size=c.users)
        uniforms = rng.random((c.users, c.longest))
        drawn = [np.searchsorted(cumulative(t), u, side="right") + 1 for t, u in zip(theta, uniforms, strict=True)]
        items = of_category.draw(np.stack(drawn, axis=1), rng.random(shape)).T
        probability = np.concatenate([[0.0], theta.mean(axis=0)])
    else:
        category = np.searchsorted(cumulative(probability), rng.random(shape), side="right")
        items = of_category.draw(category, rng.random(shape)).T
    kept = np.arange(c.longest) < lengths[:, None]
    return items[kept], lengths, probability[world.item_category] * share


def generate(config: AnyWorld) -> Log:
    """The log of a world, drawn unless it is stored already.

    Ids cover the whole world, also items and categories that are never clicked, so that
    `Log.item_probability` is the true marginal probability of a click for every item.
    It is stored as `generated-KIND-HASH`, with the hash of the configuration.
    """
    options = config.model_dump(mode="json")
    text = canonical_json(options | {"process": PROCESS})
    name = f"generated-{config.kind}-{short_hash(text)[:8]}"
    stored = find(name)
    if stored is not None:
        return stored
    world = build_world(config)
    items, lengths, probability = draw_items(world)
    to_id = item_ids(config)
    item_category = np.empty_like(world.item_category)
    item_category[to_id] = world.item_category
    item_probability = np.empty_like(probability)
    item_probability[to_id] = probability
    card = Card(
        name=name,
        title=f"Generated world, {config.kind.replace('_', ' ')}",
        kind="generated log",
        source=SOURCE,
        terms="free to use: no real person's data",
        provenance=["Drawn from the random process stated in dare_core/data/worlds.py."],
        sha256=hashlib.sha256(text.encode()).hexdigest(),
        rows_read=len(items),
        rows_kept=len(items),
        users=config.users,
        items=config.items,
        categories=config.categories,
        filters=[],
        created_with=options,
    )
    clicks = to_id[items]
    user = np.repeat(np.arange(1, config.users + 1), lengths)
    frame = pl.DataFrame({"user": user, "item": clicks, "category": item_category[clicks]})
    return store_log(card, frame.with_columns(behaviour=pl.lit("click")), item_category, item_probability)


def world_of(log: Log) -> World | None:
    """The world that a log was drawn from; None for a log that `generate` did not make."""
    return build_world(world_config(log.card.created_with)) if log.card.source == SOURCE else None
