"""Controls of the Attention accuracy chapter: worlds in which attention must learn nothing, and the default one in
which it must."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dare_core.evaluation.intervals import interval
from dare_core.evaluation.retrieval import (
    candidate_ndcg,
    learned_attention,
    mean_known,
    retrieve,
    retrieve_by_rule,
)
from dare_core.models.click_model import ClickModel
from dare_core.models.search import same_category
from dare_core.models.zoo import build_model
from dare_core.studies.experiment import Experiment
from dare_core.studies.scores import columns
from dare_core.studies.settings import StudyConfig
from dare_core.training.runs import RunStore, counts_of

SHARED = ("DARE", "TWIN")
"""Models whose attention reads target and behaviour from one table."""
INDEPENDENT = (*SHARED, "DIN", "TWIN-4E")
MORE = 7
"""How many times more users the larger worlds of the slope have."""
DIPS = 18
"""Earlier targets in the history of a user's last training target: 19 targets, as published."""
MET: dict[str, Callable[[float, float], bool]] = {
    "contains 0": lambda low, high: low <= 0 <= high,
    "below 0": lambda low, high: high < 0,
    "above 0": lambda low, high: low > 0,
    "not above 0": lambda low, high: low <= 0,
}
"""What the interval over worlds must do, from its bounds."""


def worlds_of(config: StudyConfig, kind: str, worlds: int, users: int, store: RunStore) -> Experiment:
    """Some small worlds of a kind; each has its own seed, with which its models train too."""
    return Experiment(config.model_copy(update={"world_users": users, "seeds": worlds}), kind, store)


def control_row(control: str, world: str, values: Sequence[float], must: str) -> dict[str, Any]:
    """A row of the table of controls: the mean over worlds with its interval, and whether it is as it must be."""
    found = interval(np.array(values)[:, None])
    return {
        "control": control,
        "world": world,
        "worlds": len(values),
        **columns("mean", found.estimate, found.low, found.high),
        "must": must,
        "met": ("yes" if MET[must](found.low, found.high) else "no") if np.isfinite(found.low) else None,
    }


def position_slope(model: ClickModel, length: int) -> float:
    """Slope of a model's score on ln(position), positions 1 to N, within a category.

    Between behaviours of one category the score, items left out, differs by position alone. NaN where N is 1.
    """
    if length < 2:
        return float("nan")
    score = learned_attention(model, np.array([1]), length)[0, 0]
    return float(np.polyfit(np.log(np.arange(1, length + 1)), score, 1)[0])


def spacing_dip(model: ClickModel, length: int, spacing: int) -> float:
    """A model's score at the positions that are multiples of the targets' spacing, minus that of the positions
    next to them, within a category, among the `DIPS` first multiples.

    Under the published protocol a user's training targets are in one another's histories at these positions. NaN
    where there are none.
    """
    score = learned_attention(model, np.array([1]), length)[0, 0]
    at = np.arange(spacing, min(spacing * (DIPS + 1), length), spacing) - 1
    return mean_known(score[at] - (score[at - 1] + score[at + 1]) / 2)


def slope_rows(worlds: Experiment) -> list[dict[str, Any]]:
    """Slope of DARE's score on ln(position): around 0 on *no_decay*, below 0 on the default world; and on
    *no_decay* its score at the positions of earlier targets (`spacing_dip`)."""
    config = worlds.config
    pairs = zip(worlds.seeds, worlds.runs_at("DARE"), strict=True)
    models = [run.model(worlds.log_of(seed)) for seed, run in pairs]
    slopes = [position_slope(model, config.history) for model in models]
    name, world = "slope of DARE's score on ln(position)", f"{worlds.name}, {config.world_users:,} users"
    if worlds.name != "no_decay":
        return [control_row(name, world, slopes, "below 0")]
    dips = [spacing_dip(model, config.history, config.spacing) for model in models]
    return [
        control_row(name, world, slopes, "contains 0"),
        control_row("DARE's score where earlier targets stand", world, dips, "contains 0"),
    ]


def same_category_ndcg(worlds: Experiment, seed: int) -> dict[str, float]:
    """NDCG at K of models in one world, trained and untrained, and of random retrieval; the gain is 1 for behaviours
    of the candidate's category."""
    log, test, top_k = worlds.log_of(seed), worlds.samples(seed)["test"], worlds.config.top_k
    gains = same_category(test.batch(slice(None))).numpy().astype(np.float32)
    orders = {"random": retrieve_by_rule("random", test, top_k, seed).order}
    for name in INDEPENDENT:
        run_config = worlds.run_config(name, seed)
        untrained = build_model(run_config.model, counts_of(log, run_config.samples), run_config.training, seed).eval()
        orders[f"{name} trained"] = retrieve(worlds.store.get(run_config).model(log), test, top_k).order
        orders[f"{name} untrained"] = retrieve(untrained, test, top_k).order
    judged = np.ones(gains.shape[:2], bool)
    return {name: mean_known(candidate_ndcg(gains, order, judged)[..., -1]) for name, order in orders.items()}


def independent_rows(worlds: Experiment) -> list[dict[str, Any]]:
    """Retrieval on *independent*, by NDCG with gain 1 for the target's category.

    No model may retrieve better than its own untrained self, and TWIN-4E no better than random; a shared table
    prefers the same category before any training, because a vector's product with itself is large.
    """
    found = [same_category_ndcg(worlds, seed) for seed in worlds.seeds]
    compared = [(f"{name} trained", f"{name} untrained", "not above 0") for name in INDEPENDENT]
    compared.append(("TWIN-4E trained", "random", "not above 0"))
    compared += [(f"{name} untrained", "random", "above 0") for name in SHARED]
    title = "NDCG of the same category: {} minus {}"
    return [
        control_row(title.format(first, second), worlds.name, [v[first] - v[second] for v in found], must)
        for first, second, must in compared
    ]


def control_rows(config: StudyConfig, worlds: int, users: int, store: RunStore) -> list[dict[str, Any]]:
    """The table of controls, over several worlds of each kind (at least 2), each trained with its own seed.

    Slopes are given for two numbers of users: a model learns a few hundred users' histories by heart, those of a
    user's training targets overlap, and so positions come to differ a little where the world knows no difference.
    """
    sizes = [(kind, number) for number in (users, MORE * users) for kind in ("generated", "no_decay")]
    rows = [row for kind, number in sizes for row in slope_rows(worlds_of(config, kind, worlds, number, store))]
    return rows + independent_rows(worlds_of(config, "independent", worlds, users, store))
