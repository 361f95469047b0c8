"""Attention accuracy: whether a model attends to, and retrieves, the behaviours that matter (claims A2, A3, A4 and
S1; paper, sections 4.3 and 3.4, figures 8 and 9, appendix E.4). Statistics are replicates by seed and group of users
(`dare_core.evaluation.intervals`)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import numpy as np

from dare_core.data.generated import world_of
from dare_core.data.logs import Log
from dare_core.data.samples import Samples, training_counts
from dare_core.data.worlds import true_relevance
from dare_core.evaluation.intervals import Interval, Replicates, interval, wilson
from dare_core.evaluation.metrics import Array
from dare_core.evaluation.relevance import (
    Gains,
    RelevanceCounts,
    category_totals,
    information_gains,
    relevance_counts,
    user_weights,
)
from dare_core.evaluation.retrieval import (
    RULES,
    Retrieval,
    best_columns,
    candidate_ndcg,
    left_out_share,
    map_of,
    mean_items,
    mean_known,
    own_first,
    rank_correlation,
    retrieve,
    retrieve_by_rule,
    retrieved_mask,
    same_category,
    same_category_counts,
    symmetry,
)
from dare_core.studies import settings
from dare_core.studies.experiment import CLAIMED, Experiment
from dare_core.studies.settings import WORLDS

GAINS = ("information", "signed", "above chance", "true relevance")
"""Kinds of gain: A3 is judged by the mutual information, the others are shown."""
LEAST_CATEGORIES = 3
"""Target categories below which nothing is said about the relevance between categories."""
Closeness = Callable[[Array, Array], Array]
"""(T,) how near a map of learned attention (T, T, P), the second argument, is to one of relevance."""


Config = settings.AttentionConfig


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

    @property
    def of_worlds(self) -> bool:
        """Whether each seed has a generated world of its own."""
        return self.experiment.name in WORLDS

    @cached_property
    def weights(self) -> list[Array]:
        """(1 + G, H) weights of the test targets."""
        return [self.experiment.weights(split["test"]) for split in self.splits]

    @cached_property
    def training_weights(self) -> list[Array]:
        """(1 + G, U) weights of the training users, by which mutual information is counted."""
        train = [split["train"] for split in self.splits]
        return [user_weights(samples, self.experiment.groups(samples)) for samples in train]

    @cached_property
    def same_category(self) -> list[np.ndarray]:
        """(H, C) behaviours of the candidate's category in each test history."""
        return [same_category_counts(split["test"]) for split in self.splits]

    @cached_property
    def most_relevant(self) -> list[np.ndarray]:
        """(H, C, N) true for the K behaviours of highest gain of each judged candidate."""
        top_k = self.experiment.config.top_k
        return [best_columns(np.where(g.judged[..., None], g.information, 0), top_k) for g in self.gains]

    @cached_property
    def prior_relevance(self) -> list[Array]:
        """(T, T) relevance between all target categories with enough training samples."""
        return [category_relevance(c.chance(), c.mutual_information()) for c in self.priors]


def measure(experiment: Experiment, config: Config) -> LogAttention:
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


def relevance_truth(log: Log, test: Samples) -> np.ndarray | None:
    """(H, C, N) true relevance of every behaviour of the test histories; None for a log that was not generated."""
    world = world_of(log)
    if world is None:
        return None
    history = test.batch(slice(None)).history_categories.numpy().astype(np.int64)
    targets = test.categories.numpy().astype(np.int64).T
    return np.stack([true_relevance(world, history, target) for target in targets], 1).astype(np.float32)


def true_map(log: Log, counts: RelevanceCounts) -> Array | None:
    """(T, T, P) true relevance of the heat maps' cells on a generated world where there is any, else None."""
    world = world_of(log)
    if world is None:
        return None
    t = len(counts.categories)
    history = np.repeat(counts.categories[:, None], counts.positions, 1)  # a history of b alone
    values = [true_relevance(world, history, np.full(t, c)) for c in counts.categories]
    relevance = np.stack(values)[..., ::-1]  # newest last -> position from 1
    return relevance if relevance.any() else None


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


def ndcg_curve(view: LogAttention, gain: str, name: str) -> Array | None:
    """(K,) NDCG at 1..K, mean over test samples and seeds; None where a seed has none."""
    known = [values[np.isfinite(values[..., -1])] for values in view.quality[gain][name]]  # (n, K) each
    return np.mean([values.mean(0) for values in known], 0) if all(len(values) for values in known) else None


def ndcg_note(view: LogAttention, other: str) -> str:
    """NDCG at K of DARE and of another model, and how many test samples it is measured on."""
    known = [np.isfinite(values[..., -1]) for values in view.quality["information"][RULES[0]]]
    judged, total = (round(float(np.mean([f(part) for part in known]))) for f in (np.sum, np.size))
    names = [name for name in (CLAIMED, other) if name in view.retrieved and judged]
    means = {name: float(ndcg_at_k(view, "information", name)[:, 0].mean()) for name in names}
    parts = [f"NDCG of {name} {mean:.3f}" for name, mean in means.items()]
    return "; ".join([*parts, f"{judged:,} of {total:,} test samples pass the thresholds"])


def notes(view: LogAttention) -> dict[str, str]:
    """Notes of the ledger by quantity: what A2, A3 and A4 are measured on."""
    share = float(np.mean([(same > 0).mean() for same in view.same_category]))
    with_one = f"{share:.0%} of the test samples have a behaviour of the target's category"
    nothing = view.of_worlds and any(truth is None for truth in view.true_maps)
    true = "no behaviour is relevant in this world" if nothing else "against the true relevance"
    return {
        "overrating_twin_minus_dare": f"newest {view.counts[0].positions} positions; {with_one}",
        "truth_correlation_dare_minus_twin": true if view.of_worlds else "against mutual information",
        "ndcg_dare_over_twin": ndcg_note(view, "TWIN"),
        "ndcg_dare_over_din": ndcg_note(view, "DIN"),
        "same_category_left_out_twin_minus_dare": with_one,
    }


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

    parts = zip(view.counts, view.training_weights, view.maps[name], strict=True)
    return np.stack([counts.replicates(weights, partial(statistic, learned)) for counts, weights, learned in parts])


def true_closeness(view: LogAttention, name: str, closeness: Closeness) -> Replicates:
    """Closeness of learned attention to the true relevance of each world (W, 1); NaN where there is none."""
    pairs = zip(view.true_maps, view.maps[name], strict=True)
    return np.array([[np.nan if t is None else mean_known(closeness(t, m))] for t, m in pairs])


def truth_correlation(view: LogAttention, name: str) -> Replicates:
    """Rank correlation of learned attention with relevance: the true one of generated worlds, else mutual
    information."""
    return (true_closeness if view.of_worlds else estimated_closeness)(view, name, rank_correlation)


def kept_by_position(view: LogAttention, name: str) -> np.ndarray:
    """(2, 2, N) behaviours of highest gain, and how many of them are retrieved; those of the target's category, and
    others; at each position, the newest first. Sums over test samples and seeds."""
    kept = np.zeros((2, 2, view.most_relevant[0].shape[-1]), np.int64)
    for best, retrieval, split in zip(view.most_relevant, view.retrieved[name], view.splits, strict=True):
        same = same_category(split["test"].batch(slice(None))).numpy()
        for i, part in enumerate((best, best & retrieved_mask(retrieval.order, best.shape[-1]))):
            kept[i] += np.stack([(part & side).sum((0, 1))[::-1] for side in (same, ~same)])
    return kept


def category_relevance(chance: Array, information: Array) -> Array:
    """(T, T) relevance of behaviour category b for target category c: mutual information above the level of
    permuted labels, mean over positions. The level depends on both categories' frequencies, which would pass
    for structure."""
    return (information - chance).mean(2)


def enough_categories(relevance: Sequence[Array]) -> bool:
    """Whether every map of relevance (T, T) has enough categories to speak of the relevance between them."""
    return min(len(each) for each in relevance) >= LEAST_CATEGORIES


def relevance_symmetry(view: LogAttention) -> Interval:
    """Rank correlation of the relevance between categories with its transpose."""

    def statistic(chance: Array, information: Array) -> float:
        return symmetry(category_relevance(chance, information))

    pairs = zip(view.priors, view.training_weights, strict=True)
    return interval(np.stack([c.replicates(weights, partial(statistic, c.chance())) for c, weights in pairs]))


def own_category_first(view: LogAttention) -> Interval:
    """Share of target categories whose most relevant behaviour category is their own, less chance.

    Over worlds by Student's t; on one log by Wilson's interval over the categories, of the mean share over seeds.
    """
    shares = np.array([own_first(relevance) for relevance in view.prior_relevance])
    numbers = np.array([len(counts.categories) for counts in view.priors])
    if view.of_worlds:
        return interval((shares - 1 / numbers)[:, None])
    found, chance = wilson(float(shares.mean()), round(float(numbers.mean()))), float((1 / numbers).mean())
    low, high = found.low - chance, found.high - chance
    return replace(found, estimate=found.estimate - chance, low=low, high=high, seeds=len(shares))
