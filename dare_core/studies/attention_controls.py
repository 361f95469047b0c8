"""Worlds in which attention must learn nothing, beside the default one: a study that cannot fail shows nothing."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dare_core.data.samples import Samples
from dare_core.evaluation.attention_maps import learned_attention, mean_known
from dare_core.evaluation.intervals import Interval, interval
from dare_core.evaluation.retrieval import candidate_ndcg, retrieve, retrieve_by_rule, same_category
from dare_core.models.click_model import ClickModel
from dare_core.models.zoo import build_model
from dare_core.studies.common import StudyConfig
from dare_core.studies.experiment import Experiment
from dare_core.studies.scores import columns
from dare_core.training.runs import RunStore, counts_of

SHARED = ("DARE", "TWIN")
"""Models whose attention reads target and behaviour from one table."""
MORE = 7
"""How many times more users the larger worlds of the slope have."""
DIPS = 18
"""Earlier targets that stand in the history of a user's last training target: 19 targets, as published."""
INDEPENDENT = (*SHARED, "DIN", "TWIN-4E")


def over_worlds(values: Sequence[float]) -> Interval:
    """Mean over worlds with its interval: each world is drawn and trained anew."""
    return interval(np.array(values)[:, None])


def worlds_of(config: StudyConfig, kind: str, worlds: int, users: int, store: RunStore) -> Experiment:
    """Some small worlds of a kind; each has its own seed, with which its models train too."""
    return Experiment(config.model_copy(update={"world_users": users, "seeds": worlds}), kind, store)


def position_slope(model: ClickModel, length: int) -> float:
    """Slope of a model's score on ln(position), positions 1 to N, within a category.

    Between behaviours of one category the score, items left out, differs by position alone. NaN where N is 1.
    """
    if length < 2:
        return float("nan")
    score = learned_attention(model, np.array([1]), length)[0, 0]
    return float(np.polyfit(np.log(np.arange(1, length + 1)), score, 1)[0])


def same_category_gains(samples: Samples) -> np.ndarray:
    """(H, C, N) 1 for behaviours of the candidate's category, 0 for others."""
    return same_category(samples.batch(slice(None))).numpy().astype(np.float32)


def quality(order: np.ndarray, gains: np.ndarray) -> float:
    """Mean NDCG at K over the candidates that have a gain."""
    return mean_known(candidate_ndcg(gains, order, np.ones(order.shape[:2], bool))[..., -1])


def independent_world(worlds: Experiment, seed: int) -> dict[str, float]:
    """How well models retrieve the target's category where no behaviour says anything: trained, untrained, random."""
    log, test, top_k = worlds.log_of(seed), worlds.samples(seed)["test"], worlds.config.top_k
    gains = same_category_gains(test)
    found = {"random": quality(retrieve_by_rule("random", test, top_k, seed).order, gains)}
    for name in INDEPENDENT:
        run_config = worlds.run_config(name, seed)
        trained = worlds.store.get(run_config).model(log)
        untrained = build_model(run_config.model, counts_of(log, run_config.samples), run_config.training, seed).eval()
        for state, model in (("trained", trained), ("untrained", untrained)):
            found[f"{name} {state}"] = quality(retrieve(model, test, top_k).order, gains)
    return found


def control_row(
    control: str, world: str, values: Sequence[float], must: str, met: Callable[[float, float], bool]
) -> dict[str, Any]:
    """A row of the table of controls; `met` takes the interval's bounds."""
    found = over_worlds(values)
    return {
        "control": control,
        "world": world,
        "worlds": len(values),
        **columns("mean", found.estimate, found.low, found.high),
        "must": must,
        "met": ("yes" if met(found.low, found.high) else "no") if np.isfinite(found.low) else None,
    }


def spacing_dip(model: ClickModel, length: int, spacing: int) -> float:
    """A model's score at the positions that are multiples of the targets' spacing, minus that of the positions
    next to them, within a category, among the `DIPS` first multiples.

    Under the published protocol a user's training targets stand in one another's histories at these positions. NaN
    where there are none.
    """
    score = learned_attention(model, np.array([1]), length)[0, 0]
    at = np.arange(spacing, min(spacing * (DIPS + 1), length), spacing) - 1
    return mean_known(score[at] - (score[at - 1] + score[at + 1]) / 2)


def slope_rows(config: StudyConfig, kind: str, worlds: int, users: int, store: RunStore) -> list[dict[str, Any]]:
    """Slope of DARE's score on ln(position): around 0 on *no_decay*, below 0 on the default world; and on
    *no_decay* its score where earlier targets stand (`spacing_dip`)."""
    drawn = worlds_of(config, kind, worlds, users, store)
    pairs = zip(drawn.seeds, drawn.runs_at("DARE"), strict=True)
    models = [run.model(drawn.log_of(seed)) for seed, run in pairs]
    slopes = [position_slope(model, config.history) for model in models]
    name, world = "slope of DARE's score on ln(position)", f"{kind}, {users:,} users"
    if kind != "no_decay":
        return [control_row(name, world, slopes, "below 0", below_zero)]
    dips = [spacing_dip(model, config.history, config.spacing) for model in models]
    return [
        control_row(name, world, slopes, "contains 0", around_zero),
        control_row("DARE's score where earlier targets stand", world, dips, "contains 0", around_zero),
    ]


def independent_rows(config: StudyConfig, worlds: int, users: int, store: RunStore) -> list[dict[str, Any]]:
    """Retrieval on *independent*, by NDCG with gain 1 for the target's category.

    No model may retrieve better than its own untrained self, and TWIN-4E no better than random; a shared table
    prefers the same category before any training, because a vector's product with itself is large.
    """
    drawn = worlds_of(config, "independent", worlds, users, store)
    found = [independent_world(drawn, seed) for seed in drawn.seeds]
    compared = [(f"{name} trained", f"{name} untrained", "not above 0", not_above_zero) for name in INDEPENDENT]
    compared.append(("TWIN-4E trained", "random", "not above 0", not_above_zero))
    compared += [(f"{name} untrained", "random", "above 0", above_zero) for name in SHARED]
    return [
        control_row(
            f"NDCG of the same category: {first} minus {second}",
            "independent",
            [values[first] - values[second] for values in found],
            must,
            met,
        )
        for first, second, must, met in compared
    ]


def control_rows(config: StudyConfig, worlds: int, users: int, store: RunStore) -> list[dict[str, Any]]:
    """The table of controls, over several worlds of each kind (at least 2), each trained with its own seed.

    Slopes are given for two numbers of users: a model learns a few hundred users' histories by heart, those of a
    user's training targets overlap, and so positions come to differ a little where the world knows no difference.
    """
    return [
        *(row for kind in ("generated", "no_decay") for row in slope_rows(config, kind, worlds, users, store)),
        *(row for kind in ("generated", "no_decay") for row in slope_rows(config, kind, worlds, MORE * users, store)),
        *independent_rows(config, worlds, users, store),
    ]


def around_zero(low: float, high: float) -> bool:
    """The interval contains 0."""
    return low <= 0 <= high


def below_zero(low: float, high: float) -> bool:
    """The interval lies below 0."""
    return high < 0


def above_zero(low: float, high: float) -> bool:
    """The interval lies above 0."""
    return low > 0


def not_above_zero(low: float, high: float) -> bool:
    """The interval does not lie above 0."""
    return low <= 0
