"""Attention accuracy: does a model attend to, and retrieve, what matters? (A2, A3, A4, S1; paper, 4.3, 3.4,
figures 8 and 9, appendix E.4)"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import Field

from dare_core.data.samples import training_counts
from dare_core.errors import InputError
from dare_core.evaluation.attention_maps import map_of, mean_items
from dare_core.evaluation.gains import category_totals, information_gains
from dare_core.evaluation.intervals import Interval, interval, ratio_interval
from dare_core.evaluation.relevance import relevance_counts
from dare_core.evaluation.retrieval import RULES, Retrieval, best_columns, retrieve, retrieve_by_rule
from dare_core.models.zoo import MODELS
from dare_core.report.claims import NOT_COMPUTED
from dare_core.studies.attention_controls import control_rows
from dare_core.studies.attention_rows import (
    case_rows,
    closeness_rows,
    curve_rows,
    kept_rows,
    map_rows,
    prior_rows,
    retrieval_rows,
)
from dare_core.studies.attention_view import (
    GAINS,
    View,
    enough_categories,
    left_out,
    ndcg_at_k,
    own_category_first,
    qualities,
    recent_other,
    relevance_symmetry,
    relevance_truth,
    true_map,
    truth_correlation,
)
from dare_core.studies.experiment import CLAIMED, REFERENCE, Experiment, Record
from dare_core.studies.gain_settings import GainSettings
from dare_core.training.runs import RunStore

OTHER = "DIN"
NOT_SEARCHING = ("SDIM",)  # averages hash buckets and retrieves nothing


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
class Result:
    """Everything that the chapter shows."""

    config: Config
    record: Record
    views: list[View]


def view_of(experiment: Experiment, config: Config) -> View:
    """Retrieve with every model and rule, and read off what was learned."""
    view = View(experiment)
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


def judge_models(record: Record, view: View, models: Sequence[str]) -> None:
    """Add the rows of A2, A3 and A4; a part whose models are missing cannot be tested."""
    experiment = view.experiment

    def add(claim: str, quantity: str, pair: tuple[str, str], make: Callable[[], Interval], note: str) -> None:
        absent = [name for name in pair if name not in models]
        measured, why = (None, f"{NOT_COMPUTED}{', '.join(absent)}") if absent else (make(), note)
        record.judge(claim, quantity, measured, experiment, why)

    def over() -> Interval:
        return interval(recent_other(view, REFERENCE) - recent_other(view, CLAIMED))

    def closer() -> Interval:
        return interval(truth_correlation(view, CLAIMED) - truth_correlation(view, REFERENCE))

    def more_left_out() -> Interval:
        return interval(left_out(view, REFERENCE) - left_out(view, CLAIMED))

    both = (CLAIMED, REFERENCE)
    share = float(np.mean([(same > 0).mean() for same in view.same_category]))
    with_one = f"{share:.0%} of the test samples have a behaviour of the target's category"
    nothing = view.of_worlds and any(truth is None for truth in view.true_maps)
    true = "no behaviour is relevant in this world" if nothing else "against the true relevance"
    against = true if view.of_worlds else "against mutual information"
    newest = f"newest {view.counts[0].positions} positions"
    add("A2", "overrating_twin_minus_dare", both, over, f"{newest}; {with_one}")
    add("A2", "truth_correlation_dare_minus_twin", both, closer, against)
    for other, quantity in ((REFERENCE, "ndcg_dare_over_twin"), (OTHER, "ndcg_dare_over_din")):
        add("A3", quantity, (CLAIMED, other), lambda other=other: ratio(view, other), levels(view, other))  # type: ignore[misc]
    add("A4", "same_category_left_out_twin_minus_dare", both, more_left_out, with_one)


def ratio(view: View, other: str) -> Interval:
    """NDCG at K of DARE over that of another model."""
    return ratio_interval(ndcg_at_k(view, "information", CLAIMED), ndcg_at_k(view, "information", other))


def levels(view: View, other: str) -> str:
    """NDCG of both models, and of how many test samples."""
    known = [np.isfinite(values[..., -1]) for values in view.quality["information"][RULES[0]]]
    judged, total = (round(float(np.mean([f(part) for part in known]))) for f in (np.sum, np.size))
    note = f"{judged:,} of {total:,} test samples pass the thresholds"
    names = [name for name in (CLAIMED, other) if name in view.retrieved and judged]
    means = {name: float(ndcg_at_k(view, "information", name)[:, 0].mean()) for name in names}
    return "; ".join([*(f"NDCG of {name} {mean:.3f}" for name, mean in means.items()), note])


def judge_priors(record: Record, view: View) -> None:
    """Add the rows of S1, which need no model."""
    count = round(float(np.mean([len(counts.categories) for counts in view.priors])))
    first = symmetric = None
    note = f"{count} target categories"
    if enough_categories(view):
        first, symmetric = own_category_first(view), relevance_symmetry(view)
    record.judge("S1", "own_category_first", first, view.experiment, note)
    record.judge("S1", "relevance_symmetry", symmetric, view.experiment, note)


def of_models(view: View) -> dict[str, list[Retrieval]]:
    """What models retrieve, rules left out."""
    return {name: found for name, found in view.retrieved.items() if name in MODELS}


def correct(view: View) -> list[np.ndarray]:
    """(H, C, N) the K behaviours of highest gain, one array per seed."""
    top_k = view.experiment.config.top_k
    return [best_columns(np.where(g.judged[..., None], g.information, 0), top_k) for g in view.gains]


def run(config: Config) -> Result:
    """Train the models on every log, and judge A2, A3, A4 and S1."""
    if not_searching := sorted(set(config.model_names) & set(NOT_SEARCHING)):
        raise InputError(f"models: {', '.join(not_searching)} retrieves no behaviours; try DARE,TWIN.")
    record = Record("attention", config, RunStore())
    views = []
    tables: dict[str, list[dict[str, Any]]] = {}
    for name in config.log_names:
        experiment = record.use(name)
        experiment.train(config.model_names)
        view = view_of(experiment, config)
        judge_models(record, view, config.model_names)
        judge_priors(record, view)
        parts: Mapping[str, list[dict[str, Any]]] = {
            "retrieval": retrieval_rows(view),
            "curves": curve_rows(view),
            "maps": map_rows(view),
            "closeness": closeness_rows(view),
            "kept": kept_rows(view, correct(view)),
            "priors": prior_rows(view, config.model_names),
            "cases": case_rows(view, of_models(view), (CLAIMED, REFERENCE), config.cases),
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
