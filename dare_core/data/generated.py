"""Draws the logs of generated worlds; `dare_core.data.world` states their random processes."""

import hashlib

import numpy as np
import polars as pl

from dare_core.data.logs import Card, Log, find, store_log
from dare_core.data.world import REACH, Floats, Ints, Kernel, World, WorldConfig, build_world
from dare_core.files import canonical_json, short_hash

# Raised when the process changes: a stored log of the same configuration is then another one.
PROCESS = 1
SOURCE = "dare_core.data.generated"


def _cumulative(weights: Floats) -> Floats:
    """Cumulative distribution whose last value is exactly 1, so that no uniform number falls outside."""
    total = np.cumsum(weights)
    return total / total[-1]


class _Grouped:
    """Draws a member of a given group in proportion to its weight; groups are small whole numbers."""

    def __init__(self, group: Ints, weight: Floats) -> None:
        self.order = np.argsort(group, kind="stable")
        self.cumulative = np.concatenate([[0.0], np.cumsum(weight[self.order])])
        self.start = np.searchsorted(group[self.order], np.arange(group.max() + 2))

    def draw(self, group: Ints, uniform: Floats) -> Ints:
        """One member's index for each given group; `uniform` in [0, 1) decides which."""
        first, stop = self.start[group], self.start[group + 1]
        low, high = self.cumulative[first], self.cumulative[stop]
        found = np.searchsorted(self.cumulative, low + uniform * (high - low), side="right") - 1
        return self.order[np.clip(found, first, stop - 1)]


def _positions(kernel: Kernel, uniform: Floats) -> Ints:
    return np.searchsorted(_cumulative(kernel.values()), uniform, side="right") + 1


def _twin_clicks(world: World, rng: np.random.Generator) -> Ints:
    """Items (longest, users) of the twin, drawn step by step for all users at once."""
    c, users = world.config, world.config.users
    popularity = _cumulative(world.category_probability)
    in_category = _Grouped(world.item_category, world.item_share)
    in_group = _Grouped(world.group, world.category_probability)
    interests = np.searchsorted(popularity, rng.random((users, c.interests)), side="right")
    interest_weight = _cumulative(1.0 / np.arange(1, c.interests + 1))
    everyone = np.arange(users)
    past_share = c.repeat_share + c.continue_share
    base_interest = c.interest_share / (1 - past_share)
    mean = np.array([c.repeat_share, c.continue_share, 1 - past_share])
    repeat, past = rng.dirichlet(c.alikeness * np.maximum(mean, 1e-9), users).T[:2].cumsum(axis=0)
    items = np.zeros((REACH + c.longest, users), np.int64)
    for t in range(len(items)):
        part, moved, fresh, which, base = rng.random((5, users))
        repeats, continues = part < repeat, part < past
        uniform = rng.random(users)
        p = np.where(repeats, _positions(c.repeat_kernel, uniform), _positions(c.continue_kernel, uniform))
        from_past = continues & (p <= t)
        source = items[np.maximum(t - p, 0), everyone]
        own = interests[everyone, np.searchsorted(interest_weight, which, side="right")]
        anyone = np.searchsorted(popularity, which, side="right")
        category = np.where(base < base_interest, own, anyone)
        source_category = world.item_category[source]
        related = in_group.draw(world.group[source_category], which)
        category = np.where(from_past, np.where(moved < c.related, related, source_category), category)
        item = in_category.draw(category, fresh)
        clicked = (items[max(t - REACH, 0) : t] == item).any(axis=0)
        item = np.where(clicked, in_category.draw(category, rng.random(users)), item)
        items[t] = np.where(from_past & repeats, source, item)
    return items[REACH:]


def _no_semantics_clicks(world: World, rng: np.random.Generator) -> Ints:
    """Items (longest, users) of the world in which only the hidden themes continue."""
    c, users = world.config, world.config.users
    has_themes = np.zeros(c.categories + 1, bool)
    has_themes[world.item_category[world.theme >= 0]] = True
    drawn = _Grouped(world.item_category * (c.themes + 1) + world.theme + 1, world.item_share)
    popularity = _cumulative(world.category_probability)
    everyone = np.arange(users)
    themes = np.zeros((REACH + c.longest, users), np.int64)
    items = np.zeros_like(themes)
    for t in range(len(themes)):
        part, position, fresh, which = rng.random((4, users))
        p = _positions(c.continue_kernel, position)
        continues = (part < c.theme_continue) & (p <= t)
        themes[t] = np.where(continues, themes[np.maximum(t - p, 0), everyone], rng.integers(c.themes, size=users))
        category = np.searchsorted(popularity, which, side="right")
        key = category * (c.themes + 1) + np.where(has_themes[category], themes[t] + 1, 0)
        items[t] = drawn.draw(key, fresh)
    return items[REACH:]


def _simulate(world: World) -> tuple[Ints, Ints, Floats]:
    """Items of all clicks (users one after another), clicks per user, and the items' marginal probability."""
    c = world.config
    rng = np.random.default_rng([c.world_seed, 1])
    span = c.longest + 1 - c.shortest
    uniform = rng.random(c.users) * -np.expm1(-span / c.length_scale)
    lengths = c.shortest + np.minimum((-c.length_scale * np.log1p(-uniform)).astype(np.int64), span - 1)
    in_category = _Grouped(world.item_category, world.item_share)
    probability = world.category_probability
    share = world.item_share
    shape = (c.longest, c.users)
    if c.kind == "twin":
        items = _twin_clicks(world, rng)
    elif c.kind == "no_semantics":
        items = _no_semantics_clicks(world, rng)
        themed = world.theme >= 0
        key = world.item_category * c.themes + world.theme
        of_theme = np.bincount(key[themed], weights=share[themed], minlength=key.max() + 1)
        share = share.copy()
        share[themed] /= of_theme[key[themed]] * c.themes
    elif c.kind == "no_decay":
        theta = rng.dirichlet(c.concentration * probability[1:], size=c.users)
        uniforms = rng.random((c.users, c.longest))
        drawn = [np.searchsorted(_cumulative(t), u, side="right") + 1 for t, u in zip(theta, uniforms, strict=True)]
        items = in_category.draw(np.stack(drawn, axis=1), rng.random(shape))
        probability = np.concatenate([[0.0], theta.mean(axis=0)])
    else:
        category = np.searchsorted(_cumulative(probability), rng.random(shape), side="right")
        items = in_category.draw(category, rng.random(shape))
    kept = np.arange(c.longest)[None, :] < lengths[:, None]
    return items.T[kept], lengths, probability[world.item_category] * share


def generate(config: WorldConfig) -> Log:
    """The world's log, from the store where it is there already.

    Ids cover the whole world, also items and categories that are never clicked, so that
    `Log.item_probability` is the true marginal probability of a click for every item.
    """
    options = config.model_dump(mode="json")
    text = canonical_json(options | {"process": PROCESS})
    name = f"generated-{config.kind}-{short_hash(text)[:8]}"
    stored = find(name)
    if stored is not None:
        return stored
    world = build_world(config)
    items, lengths, probability = _simulate(world)
    to_id = np.concatenate([[0], np.random.default_rng([config.world_seed, 2]).permutation(config.items) + 1])
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
        provenance=["Drawn from the random process stated in dare_core/data/world.py."],
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
    return build_world(WorldConfig(**log.card.created_with)) if log.card.source == SOURCE else None
