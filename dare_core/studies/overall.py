"""Overall comparison: the paper's Table 1 with every model, beside rules without learning (claims O1 to O5)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import yaml
from matplotlib import pyplot as plt
from pydantic import Field, field_validator

from dare_core.evaluation.intervals import Interval, Replicates, all_above, interval
from dare_core.evaluation.metrics import grouped_auc, logloss
from dare_core.files import project_root
from dare_core.models.zoo import MODELS, model_table
from dare_core.report.claims import NOT_COMPUTED
from dare_core.report.show import Shown, colour, figure, style, table
from dare_core.report.stored import show_stored_table
from dare_core.studies.common import StudyConfig
from dare_core.studies.experiment import CLAIMED, REFERENCE, Experiment, Record
from dare_core.studies.scores import auc_table, columns, score_rows
from dare_core.studies.sweeps import NOT_SEARCHED, at_own_best, numbers
from dare_core.training.runs import RunStore, counts_of

WITHOUT_TR = "TWIN (w/o TR)"
FOUR = {
    "dare_minus_twin_4e": (CLAIMED, "TWIN-4E"),
    "twin_minus_eta": (REFERENCE, "ETA"),
    "twin_minus_sdim": (REFERENCE, "SDIM"),
    "twin_minus_twin_v2": (REFERENCE, "TWIN-V2"),
}
"""The comparisons of O4."""
SIZES = (16, 128)
"""The embedding sizes of O2."""


class Config(StudyConfig):
    """Parameters of the Overall comparison chapter."""

    models: str = Field("DARE,TWIN,DIN", description="models to train, or all")
    further_sizes: str = Field("", description="further embedding sizes of DARE and TWIN; O2 needs 16 and 128")

    @field_validator("further_sizes")
    @classmethod
    def _numbers(cls, value: str) -> str:
        return ",".join(str(number) for number in numbers(value)) if value else ""

    @property
    def model_names(self) -> list[str]:
        """The models asked for; `all` is the whole table of models."""
        return list(MODELS) if self.models == "all" else self.models.split(",")


@dataclass
class Result:
    """Everything that the chapter shows."""

    config: Config
    record: Record
    experiments: list[Experiment]
    replicates: list[dict[str, Replicates]]  # AUC, of each log


Metric = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], float]
"""A metric of labels, probabilities, categories and users of samples, each (n,)."""


def gauc_by_category(labels: np.ndarray, probability: np.ndarray, categories: np.ndarray, users: np.ndarray) -> float:
    """GAUC as the published code groups it: by the target's category."""
    return grouped_auc(labels, probability, categories).value


def gauc_by_user(labels: np.ndarray, probability: np.ndarray, categories: np.ndarray, users: np.ndarray) -> float:
    """GAUC within each user's samples."""
    return grouped_auc(labels, probability, users).value


def mean_logloss(labels: np.ndarray, probability: np.ndarray, categories: np.ndarray, users: np.ndarray) -> float:
    """Logloss, turned: higher is better."""
    return -logloss(labels, probability)


def metric_replicates(experiment: Experiment, model: str, metric: Metric) -> Replicates:
    """(S, 1 + G) a metric of a model's test samples, of all users and without each group of them."""
    rows = []
    for seed, probability in zip(experiment.seeds, experiment.test_scores(model), strict=True):
        test = experiment.samples(seed)["test"]
        parts = [test.labels, probability, test.categories.numpy()]
        parts.append(np.broadcast_to(test.users.numpy()[:, None], probability.shape))
        known = ~np.isnan(probability)
        weights = experiment.weights(test).astype(bool)
        rows.append([metric(*(part[kept[:, None] & known] for part in parts)) for kept in weights])
    return np.array(rows)


def turned(found: Interval) -> Interval:
    """The interval of the negative."""
    return replace(found, estimate=-found.estimate, low=-found.high, high=-found.low)


def judge(record: Record, experiment: Experiment, replicates: Mapping[str, Replicates]) -> None:
    """Add the ledger rows of O1 and O3 to O5; a part whose models are missing cannot be tested."""
    paper = [line["model"] for line in paper_rows() if line["model"] != CLAIMED]
    missing = [name for name in [CLAIMED, *paper] if name not in replicates]
    note = size_note(record.config)

    def add(claim: str, quantity: str, models: Sequence[str], make: Callable[[], Interval], **more: Any) -> None:
        absent = [name for name in models if name not in replicates]
        if absent:  # of a conjunction a part is missing; of a single comparison nothing is known
            missing = "a part is missing: " if claim == "O4" and len(models) > 2 else NOT_COMPUTED
            record.judge(claim, quantity, None, experiment, missing + ", ".join(absent))
        else:
            record.judge(claim, quantity, make(), experiment, note, **more)

    def difference(first: str, second: str) -> Replicates:
        return replicates[first] - replicates[second]

    every = [CLAIMED, *paper]
    add("O1", "dare_minus_best_other", every, lambda: all_above({m: difference(CLAIMED, m) for m in paper}))
    if {CLAIMED, REFERENCE} <= set(replicates):
        best = at_own_best(experiment, "O1", "dare_minus_twin")
        notes = "; ".join(part for part in (note, "" if best else NOT_SEARCHED) if part)
        measured = interval(difference(CLAIMED, REFERENCE))
        record.judge("O1", "dare_minus_twin", measured, experiment, notes, best)
    add("O3", "twin_minus_without_tr", [REFERENCE, WITHOUT_TR], lambda: interval(difference(REFERENCE, WITHOUT_TR)))
    four = list(dict.fromkeys(name for pair in FOUR.values() for name in pair))
    add("O4", "smallest_of_four", four, lambda: all_above({q: difference(*pair) for q, pair in FOUR.items()}))
    for quantity, pair in FOUR.items():
        add("O4", quantity, pair, lambda pair=pair: interval(difference(*pair)))  # type: ignore[misc]
    if missing:
        return
    for name, metric in (
        ("gauc_by_category", gauc_by_category),
        ("gauc_by_user", gauc_by_user),
        ("logloss", mean_logloss),
    ):
        values = {model: metric_replicates(experiment, model, metric) for model in every}
        found = all_above({model: values[CLAIMED] - values[model] for model in paper})
        quantity = f"dare_minus_best_other_{name}"
        record.judge("O5", quantity, turned(found) if name == "logloss" else found, experiment, note)


def lead_at(experiment: Experiment, **changes: Any) -> Replicates:
    """AUC of DARE minus that of TWIN at some settings."""
    models = (experiment.runs_at(model, **changes) for model in (CLAIMED, REFERENCE))
    first, second = (experiment.auc_replicates([run.test_probability for run in runs]) for runs in models)
    return first - second


def judge_sizes(record: Record, experiment: Experiment) -> list[dict[str, Any]]:
    """Judge O2 where both its sizes are trained; returns DARE's lead over TWIN by embedding size."""
    config = record.config
    assert isinstance(config, Config)
    sizes = sorted({config.size, *(numbers(config.further_sizes) if config.further_sizes else [])})
    leads = {size: lead_at(experiment, size=size) for size in sizes}
    if set(SIZES) <= set(sizes):
        measured = interval(leads[SIZES[0]] - leads[SIZES[1]])
        record.judge("O2", "gain_16_minus_gain_128", measured, experiment)
    parts = {size: interval(values) for size, values in leads.items()}
    return [
        {"log": experiment.name, "size": size, **columns("DARE minus TWIN", part.estimate, part.low, part.high)}
        for size, part in parts.items()
    ]


def size_note(config: StudyConfig) -> str:
    """Says so where another embedding size was trained than the paper's number is of."""
    return "" if config.size == 16 else f"at size {config.size}, where the paper's number is for 16"


def run(config: Config) -> Result:
    """Train every model on every log and judge O1 to O5."""
    record = Record("overall", config, RunStore())
    result = Result(config, record, [], [])
    scores: list[dict[str, Any]] = []
    sizes: list[dict[str, Any]] = []
    for name in config.log_names:
        experiment = record.use(name)
        experiment.train(config.model_names)
        every = {m: experiment.test_scores(m) for m in config.model_names} | experiment.rule_scores()
        replicates = auc_table(experiment, every)
        judge(record, experiment, replicates)
        if config.further_sizes:
            sizes += judge_sizes(record, experiment)
        rows = score_rows(experiment, every, replicates)
        scores += [
            {"kind": "model" if row["model or rule"] in MODELS else "rule", **row}
            for row in sorted(rows, key=lambda row: -float(row["AUC"]))
        ]
        result.experiments.append(experiment)
        result.replicates.append(replicates)
    record.tables |= {"scores": scores, "sizes": sizes, "paper": paper_rows()}
    record.write()
    return result


def paper_rows() -> list[dict[str, Any]]:
    """Table 1 of the paper, quoted: mean AUC by model, log and size."""
    quoted = yaml.safe_load((project_root() / "book" / "table1.yml").read_text("utf-8"))
    return [
        {"model": model, **{f"{log} {size}": cell[0] for log, sizes in logs.items() for size, cell in sizes.items()}}
        for model, logs in quoted["rows"].items()
    ]


def show_stored(result: Result) -> Shown:
    """The stored comparison of every model, labelled with its date and machine."""
    return show_stored_table("overall", "scores", "Every model")


def show_models(result: Result) -> Shown:
    """Every model: source, what it changes, parameters, search cost."""
    experiment = result.experiments[0]
    counts = counts_of(experiment.log, experiment.config.samples_for(experiment.log))
    rows = model_table(counts, result.config.size)
    return table(rows, f"The table of models; parameters on {experiment.name} at size {result.config.size}")


def show_scores(result: Result) -> Shown:
    """Models and rules, best AUC first."""
    return table(result.record.tables["scores"], "Test scores of models and of rules without learning")


def show_paper(result: Result) -> Shown:
    """The paper's table."""
    return table(result.record.tables["paper"], "The paper's Table 1, mean AUC over 5 seeds (quoted)")


def show_intervals(result: Result) -> Shown:
    """AUC of models and rules with intervals, a panel a log."""
    style()
    drawn, axes = plt.subplots(1, len(result.experiments), figsize=(5 * len(result.experiments), 5), squeeze=False)
    parts = []
    for axis, experiment, replicates in zip(axes[0], result.experiments, result.replicates, strict=True):
        intervals = {name: interval(values) for name, values in replicates.items()}
        order = sorted(intervals, key=lambda name: intervals[name].estimate)
        for at, name in enumerate(order):
            part = intervals[name]
            kind = colour(name if name in MODELS else "rule")
            axis.plot([part.low, part.high], [at, at], color=kind, lw=2)
            axis.plot(part.estimate, at, "o" if name in MODELS else "s", color=kind)
        axis.set_yticks(range(len(order)), order, fontsize=8)
        axis.set(title=experiment.name, xlabel="test AUC, 95 % interval")
        best = next(name for name in reversed(order) if name in MODELS)
        parts.append(
            f"{experiment.name}: best model {best} at {intervals[best].estimate:.3f}, "
            f"best of all {order[-1]} at {intervals[order[-1]].estimate:.3f}"
        )
    return figure(drawn, "Test AUC of models (dots) and rules (squares). " + "; ".join(parts) + ".")
