"""Attention accuracy: does a model attend to, and retrieve, what matters? (A2, A3, A4, S1; paper, 4.3, 3.4,
figures 8 and 9, appendix E.4)"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pydantic import Field

from dare_core.attention_maps import map_of, mean_items, own_first, rank_correlation, symmetry
from dare_core.data.generated import world_of
from dare_core.data.world import true_relevance
from dare_core.gains import Gains, category_totals, information_gains
from dare_core.intervals import (
    TWO,
    Draws,
    Resamples,
    difference_interval,
    jackknife_over_seeds,
    mean_interval,
    mean_resamples,
    ratio_interval,
)
from dare_core.metrics import Array
from dare_core.models import MODELS
from dare_core.relevance import RelevanceCounts, relevance_counts
from dare_core.retrieval import (
    RULES,
    Retrieval,
    best_columns,
    candidate_ndcg,
    newest_other_share,
    retrieve,
    retrieve_by_rule,
)
from dare_core.runs import RunStore
from dare_core.samples import training_counts
from dare_core.studies.attention_controls import control_rows
from dare_core.studies.attention_rows import case_rows, closeness_rows, kept_rows, map_rows, prior_rows
from dare_core.studies.common import Experiment, Record
from dare_core.studies.gain_settings import GainSettings

CLAIMED, REFERENCE, OTHER = "DARE", "TWIN", "DIN"
NOT_SEARCHING = ("SDIM",)  # averages hash buckets: nobody is retrieved


class Config(GainSettings):
    """Parameters of the Attention accuracy chapter."""

    models: str = Field("DARE,TWIN,DIN,TWIN-4E", description="models to train, or all that search")
    categories: int = Field(10, ge=2, le=200, description="most frequent target categories of the heat maps")
    positions: int = Field(10, ge=2, le=1_000, description="newest positions of the heat maps")
    control_worlds: int = Field(0, ge=0, le=50, description="worlds of each control; 0: the stored table is shown")
    control_users: int = Field(700, ge=20, description="users of a control's world")
    cases: int = Field(3, ge=1, le=20, description="cases where two models disagree most, and as many at random")

    @property
    def model_names(self) -> list[str]:
        """The models asked for; `all` is every model of the table that searches."""
        searching = [name for name in MODELS if name not in NOT_SEARCHING]
        return searching if self.models == "all" else self.models.split(",")


@dataclass
class View:
    """One log: what matters in it, and what models and rules retrieve and attend to, a seed each."""

    experiment: Experiment
    gains: list[Gains]
    truth: list[np.ndarray | None]  # (H, C, N) true relevance, on a generated world
    retrieved: dict[str, list[Retrieval]]
    counts: list[RelevanceCounts]  # of the heat maps' categories
    maps: dict[str, list[Array]]  # (T, T, P) learned attention
    quality: dict[str, dict[str, list[Array]]] = field(default_factory=dict)  # gain -> name -> (H, C, K)

    @property
    def draws(self) -> Draws:
        """Draws of users and seeds, the same for all that is compared."""
        return Draws.make(len(self.gains[0].judged), len(self.gains))


@dataclass
class Result:
    """Everything that the chapter shows."""

    config: Config
    record: Record
    views: list[View]


def relevance_truth(experiment: Experiment, seed: int) -> np.ndarray | None:
    """(H, C, N) true relevance of every behaviour of the test histories; None for a log that was not generated."""
    world = world_of(experiment.log)
    if world is None:
        return None
    test = experiment.samples(seed)["test"]
    history = test.batch(slice(None)).history_categories.numpy().astype(np.int64)
    targets = test.categories.numpy().astype(np.int64).T
    return np.stack([true_relevance(world, history, target) for target in targets], 1).astype(np.float32)


def view_of(experiment: Experiment, config: Config) -> View:
    """Retrieve with every model and rule, and read off what was learned."""
    items = training_counts(experiment.log)
    view = View(experiment, [], [], {}, [], {})
    for seed in experiment.seeds:
        splits = experiment.samples(seed)
        test = splits["test"]
        view.gains.append(information_gains(splits["train"], test, config.rule))
        view.truth.append(relevance_truth(experiment, seed))
        counts = relevance_counts(splits["train"], config.categories, config.positions)
        view.counts.append(counts)
        mean = mean_items(experiment.log.item_category, items, counts.categories)
        for name in config.model_names:
            model = experiment.runs[name, seed].model(experiment.log)
            found = retrieve(model, test, config.top_k, config.positions, config.with_items)
            view.retrieved.setdefault(name, []).append(found)
            learned = map_of(model, counts.categories, config.positions, mean, config.with_items)
            view.maps.setdefault(name, []).append(learned)
        for name in RULES:
            view.retrieved.setdefault(name, []).append(retrieve_by_rule(name, test, config.top_k, seed))
    for gain in ("information", "above chance", "true relevance"):
        view.quality[gain] = {name: qualities(view, name, gain, config.published_ndcg) for name in view.retrieved}
    return view


def qualities(view: View, name: str, gain: str, ideal_at_end: bool) -> list[Array]:
    """(H, C, K) NDCG at 1..K of a model or rule, a seed each, by one kind of gain; NaN where there is none.

    `information` (which A3 is judged by) and `above chance` on candidates that pass the rule of `GainRule`;
    `true relevance` on all candidates of a generated world.
    """
    found = []
    for gains, truth, retrieval in zip(view.gains, view.truth, view.retrieved[name], strict=True):
        if gain == "true relevance":
            if truth is None:
                found.append(np.full(retrieval.order.shape, np.nan))
                continue
            values, judged = truth, np.ones(gains.judged.shape, bool)
        else:
            values = gains.information if gain == "information" else gains.above_chance
            judged = gains.judged
        found.append(candidate_ndcg(values, retrieval.order, judged, ideal_at_end))
    return found


def at_k(view: View, gain: str, name: str) -> Resamples:
    """NDCG at K of a model or rule."""
    return mean_resamples([values[..., -1] for values in view.quality[gain][name]], view.draws)


def recent_other(view: View, name: str) -> Resamples:
    """Attention on recent behaviours of another category (`Retrieval.recent_other`), mean over test candidates."""
    return mean_resamples([r.recent_other for r in view.retrieved[name]], view.draws)


def newest_other(view: View, name: str) -> Resamples:
    """Share of the retrieved among the newest K and of another category (`newest_other_share`)."""
    seeds = zip(view.experiment.seeds, view.retrieved[name], strict=True)
    found = [newest_other_share(r.order, view.experiment.samples(seed)["test"]) for seed, r in seeds]
    return mean_resamples(found, view.draws)


def truth_correlation(view: View, name: str, weights: Array) -> Array:
    """(S,) Spearman's correlation of learned attention with mutual information over the behaviour categories and
    positions of a heat map, mean over target categories; `weights` (users,) count training users."""
    seeds = zip(view.maps[name], view.counts, strict=True)
    return np.array([np.nanmean(rank_correlation(m, c.mutual_information(weights))) for m, c in seeds])


def category_counts(view: View, config: Config) -> list[RelevanceCounts]:
    """Counts of S1: all target categories with `least_samples` training samples, newest positions, a seed each."""
    found = []
    for seed in view.experiment.seeds:
        train = view.experiment.samples(seed)["train"]
        frequent = int((category_totals(train).sum(1) >= config.least_samples).sum())
        found.append(relevance_counts(train, max(frequent, 1), config.positions))
    return found


def category_relevance(counts: RelevanceCounts, chance: Array, weights: Array | None = None) -> Array:
    """(T, T) relevance of behaviour category b for target category c: mutual information above the level of
    permuted labels, mean over positions. The level depends on both categories' frequencies, which would pass
    for structure."""
    return (counts.mutual_information(weights) - chance).mean(2)


def judge(record: Record, view: View, priors: list[RelevanceCounts]) -> None:
    """Add the ledger rows that the trained models allow. Two quantities of one claim have 97.5 % intervals."""
    experiment, draws = view.experiment, view.draws
    names = set(record.config.model_names)
    if {CLAIMED, REFERENCE} <= names:
        over = difference_interval(recent_other(view, REFERENCE), recent_other(view, CLAIMED), draws, TWO)
        record.judge("A2", "overrating_twin_minus_dare", over, experiment)

        def gain(weights: Array) -> Array:
            return truth_correlation(view, CLAIMED, weights) - truth_correlation(view, REFERENCE, weights)

        truth = jackknife_over_seeds(view.counts[0].users, gain, TWO)
        record.judge("A2", "truth_correlation_dare_minus_twin", truth, experiment)
    judged = int(np.mean([np.isfinite(v[..., -1]).sum() for v in view.quality["information"][RULES[0]]]))
    total = view.gains[0].judged.size
    note = f"{judged:,} of {total:,} test samples pass the thresholds"
    for other, quantity in ((REFERENCE, "ndcg_dare_over_twin"), (OTHER, "ndcg_dare_over_din")):
        if {CLAIMED, other} <= names:
            pair = at_k(view, "information", CLAIMED), at_k(view, "information", other)
            ratio = ratio_interval(*pair, draws, TWO) if judged else None
            record.judge("A3", quantity, ratio, experiment, note)
    if {CLAIMED, REFERENCE} <= names:
        newest = difference_interval(newest_other(view, REFERENCE), newest_other(view, CLAIMED), draws)
        record.judge("A4", "newest_share_twin_minus_dare", newest, experiment)
    count = len(priors[0].categories)
    chance = [c.chance() for c in priors]
    for quantity, statistic in (("relevance_symmetry", symmetry), ("same_rank_share", own_first)):

        def prior(weights: Array, statistic: Any = statistic) -> Array:
            seeds = zip(priors, chance, strict=True)
            return np.array([statistic(category_relevance(c, level, weights)) for c, level in seeds])

        enough = count > 2
        interval = jackknife_over_seeds(priors[0].users, prior, TWO) if enough else None
        record.judge("S1", quantity, interval, experiment, f"{count} target categories")


def retrieval_rows(view: View) -> list[dict[str, Any]]:
    """NDCG at K by each kind of gain, and the shares of A2 and A4, a line a model or rule."""
    rows = []
    for name in view.retrieved:
        line: dict[str, Any] = {"log": view.experiment.name, "model or rule": name}
        for gain, label in (("information", "NDCG"), ("above chance", "above chance"), ("true relevance", "true")):
            resamples = at_k(view, gain, name)
            interval = mean_interval(resamples, view.draws)
            line[label] = interval.estimate
            line[f"{label} 95 %"] = f"[{interval.low:.3f}, {interval.high:.3f}]" if np.isfinite(interval.low) else ""
        line["samples judged"] = int(np.isfinite(view.quality["information"][name][0][..., -1]).sum())
        line["attention on recent others"] = float(recent_other(view, name)[0].mean())
        line["retrieved newest others"] = float(newest_other(view, name)[0].mean())
        rows.append(line)
    return sorted(rows, key=lambda row: -np.nan_to_num(row["NDCG"]))


def curve_rows(view: View) -> list[dict[str, Any]]:
    """NDCG at k = 1..K, mean over test samples and seeds."""
    rows = []
    for gain, models in view.quality.items():
        for name, values in models.items():
            known = [v[np.isfinite(v[..., -1])] for v in values]  # (n, K) each
            if not all(len(v) for v in known):
                continue
            for k, value in enumerate(np.mean([v.mean(0) for v in known], 0), 1):
                rows.append(
                    {"log": view.experiment.name, "gain": gain, "model or rule": name, "k": k, "NDCG": float(value)}
                )
    return rows


def of_models(view: View) -> dict[str, list[Retrieval]]:
    """What models retrieve, rules left out."""
    return {name: found for name, found in view.retrieved.items() if name in MODELS}


def correct(view: View) -> list[np.ndarray]:
    """(H, C, N) the K behaviours of highest gain, a seed each."""
    top_k = view.experiment.config.top_k
    return [best_columns(np.where(g.judged[..., None], g.information, 0), top_k) for g in view.gains]


def run(config: Config) -> Result:
    """Train the models on every log, and judge A2, A3, A4 and S1."""
    record = Record("attention", config, RunStore())
    views = []
    tables: dict[str, list[dict[str, Any]]] = {}
    for name in config.log_names:
        experiment = record.use(name)
        experiment.train(config.model_names)
        view = view_of(experiment, config)
        priors = category_counts(view, config)
        judge(record, view, priors)
        relevance = [category_relevance(c, c.chance()) for c in priors]
        parts: Mapping[str, list[dict[str, Any]]] = {
            "retrieval": retrieval_rows(view),
            "curves": curve_rows(view),
            "maps": map_rows(experiment, view.counts, view.maps),
            "closeness": closeness_rows(experiment, view.counts, view.maps),
            "kept": kept_rows(experiment, view.retrieved, correct(view)),
            "priors": prior_rows(experiment, priors, relevance, config),
            "cases": case_rows(experiment, of_models(view), (CLAIMED, REFERENCE), config.cases),
        }
        for part, rows in parts.items():
            tables.setdefault(part, []).extend(rows)
        views.append(view)
    tables["controls"] = []
    if config.control_worlds > 1:
        tables["controls"] = control_rows(config, config.control_worlds, config.control_users, record.store)
    record.tables |= tables
    record.write()
    return Result(config, record, views)
