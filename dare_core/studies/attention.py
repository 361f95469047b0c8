"""Attention accuracy: whether a model attends to, and retrieves, the behaviours that matter (claims A2, A3 and A4;
paper, section 4.3, figures 8 and 9, appendix E.4), and controls: worlds in which attention must learn nothing, and the
default one in which it must. Statistics are replicates by seed and group of users."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import numpy as np

from dare_core.data.samples import Samples, training_counts
from dare_core.evaluation.intervals import Replicates, interval
from dare_core.evaluation.metrics import Array
from dare_core.evaluation.relevance import Gains, RelevanceCounts, category_totals, information_gains, relevance_counts
from dare_core.evaluation.retrieval import (
    RULES,
    Retrieval,
    candidate_ndcg,
    learned_attention,
    left_out_share,
    map_of,
    mean_items,
    mean_known,
    rank_correlation,
    retrieve,
    retrieve_by_rule,
    same_category_counts,
)
from dare_core.models.click_model import ClickModel
from dare_core.models.search import same_category
from dare_core.models.zoo import build_model
from dare_core.studies.experiment import Experiment
from dare_core.studies.relevance import category_relevance, relevance_truth, replicates_of, true_map
from dare_core.studies.scores import columns
from dare_core.studies.settings import AttentionConfig, StudyConfig
from dare_core.training.runs import RunStore, counts_of

GAINS = ("information", "signed", "above chance", "true relevance")
"""Kinds of gain: A3 is judged by the mutual information, the others are shown."""
Closeness = Callable[[Array, Array], Array]
"""(T,) how near a map of learned attention (T, T, P), the second argument, is to one of relevance."""
SHARED = ("DARE", "TWIN")
"""Models whose attention reads target and behaviour from one table."""
INDEPENDENT = (*SHARED, "DIN", "TWIN-4E")
DIPS = 18
"""Earlier targets in the history of a user's last training target: 19 targets, as published."""
MET: dict[str, Callable[[float, float], bool]] = {
    "contains 0": lambda low, high: low <= 0 <= high,
    "below 0": lambda low, high: high < 0,
    "above 0": lambda low, high: low > 0,
    "not above 0": lambda low, high: low <= 0,
}
"""What the interval over worlds must do, from its bounds."""


@dataclass
class LogAttention:
    """What is relevant on one log, and what models and rules retrieve and attend to. Lists have one entry per seed."""

    experiment: Experiment
    splits: list[dict[str, Samples]] = field(default_factory=list)
    gains: list[Gains] = field(default_factory=list)
    truth: list[np.ndarray | None] = field(default_factory=list)  # (H, C, N) true relevance, on a generated world
    retrieved: dict[str, list[Retrieval]] = field(default_factory=dict)
    counts: list[RelevanceCounts] = field(default_factory=list)  # of the heat maps' categories
    maps: dict[str, list[Array]] = field(default_factory=dict)  # (T, T, P) learned attention
    true_maps: list[Array | None] = field(default_factory=list)  # (T, T, P)
    priors: list[RelevanceCounts] = field(default_factory=list)  # of all categories with enough training samples
    quality: dict[str, dict[str, list[Array]]] = field(default_factory=dict)  # gain -> name -> (H, C, K)

    @cached_property
    def weights(self) -> list[Array]:
        """(1 + G, H) weights of the test targets."""
        return [self.experiment.weights(split["test"]) for split in self.splits]

    @cached_property
    def same_category(self) -> list[np.ndarray]:
        """(H, C) behaviours of the candidate's category in each test history."""
        return [same_category_counts(split["test"]) for split in self.splits]

    @cached_property
    def prior_relevance(self) -> list[Array]:
        """(T, T) relevance between all target categories with enough training samples."""
        return [category_relevance(c.chance(), c.mutual_information()) for c in self.priors]


def measure(experiment: Experiment, config: AttentionConfig) -> LogAttention:
    """Retrieve with every trained model and every rule, and read off relevance and learned attention."""
    view = LogAttention(experiment)
    for seed in experiment.seeds:
        log, splits = experiment.log_of(seed), experiment.samples(seed)
        train, test = splits["train"], splits["test"]
        view.splits.append(splits)
        view.gains.append(information_gains(train, test, config.rule))
        view.truth.append(relevance_truth(log, test))
        counts = relevance_counts(train, config.categories, config.positions)
        view.counts.append(counts)
        view.true_maps.append(true_map(log, counts))
        frequent = int((category_totals(train).sum(1) >= config.least_samples).sum())
        view.priors.append(relevance_counts(train, max(frequent, 1), config.positions))
        mean = mean_items(log.item_category, training_counts(log), counts.categories)
        for name in config.model_names:
            model = experiment.runs[name, seed].model(log)
            found = retrieve(model, test, config.top_k, config.positions, config.with_items)
            view.retrieved.setdefault(name, []).append(found)
            learned = map_of(model, counts.categories, counts.positions, mean, config.with_items)
            view.maps.setdefault(name, []).append(learned)
        for name in RULES:
            view.retrieved.setdefault(name, []).append(retrieve_by_rule(name, test, config.top_k, seed))
    for gain in GAINS:
        view.quality[gain] = {name: qualities(view, name, gain, config.published_ndcg) for name in view.retrieved}
    return view


def qualities(view: LogAttention, name: str, gain: str, ideal_at_end: bool) -> list[Array]:
    """(H, C, K) NDCG at 1..K of a model or rule by one kind of gain, NaN where there is none.

    The true relevance judges all candidates of a generated world, the other gains those that pass `GainRule`.
    """
    found = []
    for gains, truth, retrieval in zip(view.gains, view.truth, view.retrieved[name], strict=True):
        if gain != "true relevance":
            values = getattr(gains, gain.replace(" ", "_"))
            found.append(candidate_ndcg(values, retrieval.order, gains.judged, ideal_at_end))
        elif truth is None:
            found.append(np.full(retrieval.order.shape, np.nan))
        else:
            found.append(candidate_ndcg(truth, retrieval.order, np.ones(gains.judged.shape, bool), ideal_at_end))
    return found


def candidate_means(values: Sequence[Array], weights: Sequence[Array]) -> Replicates:
    """(S, 1 + G) mean over candidates of values (H, C), NaN left out, by the weights (1 + G, H) of their targets."""
    rows = []
    for own, each in zip(values, weights, strict=True):
        known = np.isfinite(own)
        with np.errstate(invalid="ignore"):
            rows.append(each @ np.where(known, own, 0).sum(1) / (each @ known.sum(1)))
    return np.stack(rows)


def ndcg_at_k(view: LogAttention, gain: str, name: str) -> Replicates:
    """NDCG at K of a model or rule."""
    return candidate_means([values[..., -1] for values in view.quality[gain][name]], view.weights)


def recent_other(view: LogAttention, name: str) -> Replicates:
    """Attention on recent behaviours of another category (`Retrieval.recent_other`), over the candidates whose
    history has a behaviour of their own category: elsewhere the share is a matter of recency alone."""
    pairs = zip(view.retrieved[name], view.same_category, strict=True)
    return candidate_means([np.where(same > 0, r.recent_other, np.nan) for r, same in pairs], view.weights)


def left_out(view: LogAttention, name: str) -> Replicates:
    """Share of same-category behaviours that are not retrieved although there was room (`left_out_share`)."""
    pairs = zip(view.retrieved[name], view.splits, strict=True)
    return candidate_means([left_out_share(r.order, split["test"]) for r, split in pairs], view.weights)


def estimated_closeness(view: LogAttention, name: str, closeness: Closeness) -> Replicates:
    """Closeness of learned attention to mutual information, mean over target categories."""

    def statistic(learned: Array, information: Array) -> float:
        return mean_known(closeness(information, learned))

    return replicates_of(view.experiment, view.counts, [partial(statistic, learned) for learned in view.maps[name]])


def true_closeness(view: LogAttention, name: str, closeness: Closeness) -> Replicates:
    """Closeness of learned attention to the true relevance of each world (W, 1); NaN where there is none."""
    pairs = zip(view.true_maps, view.maps[name], strict=True)
    return np.array([[np.nan if t is None else mean_known(closeness(t, m))] for t, m in pairs])


def truth_correlation(view: LogAttention, name: str) -> Replicates:
    """Rank correlation of learned attention with relevance: the true one of generated worlds, else mutual
    information."""
    return (true_closeness if view.experiment.of_worlds else estimated_closeness)(view, name, rank_correlation)


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
        **columns("mean", found),
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
