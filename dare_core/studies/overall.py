"""Overall comparison: the paper's Table 1 with every model, beside rules without learning (claims O1 to O5)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import yaml
from matplotlib import pyplot as plt
from pydantic import Field

from dare_core.claims import project_root
from dare_core.intervals import TWO, Draws, Resamples, best_of, difference_interval, holm, mean_interval
from dare_core.metrics import Array
from dare_core.models import MODELS, model_table
from dare_core.present import Shown, colour, figure, style, table
from dare_core.runs import RunStore, counts_of
from dare_core.studies.common import Experiment, Record, StudyConfig
from dare_core.studies.scores import Resampled, auc_table, score_rows
from dare_core.studies.stored import show_stored_table

CLAIMED, REFERENCE = "DARE", "TWIN"


class Config(StudyConfig):
    """Parameters of the Overall comparison chapter."""

    models: str = Field("DARE,TWIN,DIN", description="models to train, or all")

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
    resampled: list[Resampled]  # of each log


def by_target(experiment: Experiment, model: str, value: Callable[[Array], Array], draws: Draws) -> Resamples:
    """A metric that is a mean over test targets: (S,) and (S, B) from `value` of probabilities (H, C) -> (H,)."""
    values = np.stack([value(p.astype(np.float64)) for p in experiment.test_scores(model)])  # (S, H)
    known = np.isfinite(values)
    filled = np.where(known, values, 0.0)
    return filled.sum(1) / known.sum(1), (filled @ draws.users.T) / (known.astype(np.float64) @ draws.users.T)


def user_auc(probability: Array) -> Array:
    """(H,) AUC within each user's test samples: share of negatives below the clicked item, ties half."""
    clicked, others = probability[:, :1], probability[:, 1:]
    return ((others < clicked) + 0.5 * (others == clicked)).mean(1) + 0 * clicked[:, 0]


def user_logloss(probability: Array) -> Array:
    """(H,) mean cross-entropy of each user's test samples, in nats."""
    p = probability.clip(1e-8, 1 - 1e-8)
    return -(np.log(p[:, 0]) + np.log1p(-p[:, 1:]).sum(1)) / p.shape[1]


def judge(record: Record, experiment: Experiment, resamples: Mapping[str, Resamples], draws: Draws) -> None:
    """Add the ledger rows that the trained models allow."""
    models = [name for name in record.config.model_names if name in resamples]
    others = [name for name in models if name in {line["model"] for line in paper_rows()} - {CLAIMED}]
    if CLAIMED not in models or not others:
        return
    claimed = resamples[CLAIMED]
    best = best_of([resamples[name] for name in others], draws)
    size = size_note(record.config)
    note = f"over {len(others)} of the paper's other models, the best chosen anew in each resample{size}"
    record.judge("O1", "dare_minus_best_other", difference_interval(claimed, best, draws), experiment, note)
    if REFERENCE in models:
        difference = difference_interval(claimed, resamples[REFERENCE], draws)
        record.judge("O2", "dare_minus_twin_16", difference, experiment, size.strip("; "))
    if {REFERENCE, "TWIN (w/o TR)"} <= set(models):
        difference = difference_interval(resamples[REFERENCE], resamples["TWIN (w/o TR)"], draws)
        record.judge("O3", "twin_minus_without_tr", difference, experiment, size.strip("; "))
    pairs = {
        "dare_minus_twin_4e": (CLAIMED, "TWIN-4E"),
        "twin_minus_eta": (REFERENCE, "ETA"),
        "twin_minus_sdim": (REFERENCE, "SDIM"),
        "twin_minus_twin_v2": (REFERENCE, "TWIN-V2"),
    }
    there = {q: (resamples[a], resamples[b]) for q, (a, b) in pairs.items() if {a, b} <= set(models)}
    for quantity, interval in holm(there, draws).items():
        record.judge("O4", quantity, interval, experiment, f"Holm's correction over {len(there)} comparisons{size}")
    for quantity, value, sign in (
        ("dare_minus_best_other_gauc", user_auc, 1.0),
        ("dare_minus_best_other_logloss", user_logloss, -1.0),
    ):
        metric = {name: by_target(experiment, name, value, draws) for name in [CLAIMED, *others]}
        turned = [(sign * plain, sign * drawn) for plain, drawn in (metric[name] for name in others)]
        plain, drawn = best_of(turned, draws)
        interval = difference_interval(metric[CLAIMED], (sign * plain, sign * drawn), draws, TWO)
        record.judge("O5", quantity, interval, experiment, note)


def size_note(config: StudyConfig) -> str:
    """Says so where another embedding size was trained than the claim is about."""
    return "" if config.size == 16 else f"; at size {config.size}, where the paper's number is for 16"


def run(config: Config) -> Result:
    """Train every model on every log and judge O1 to O5."""
    record = Record("overall", config, RunStore())
    experiments = []
    resampled = []
    scores: list[dict[str, Any]] = []
    for name in config.log_names:
        experiment = record.use(name)
        experiment.train(config.model_names)
        every = {m: experiment.test_scores(m) for m in config.model_names} | experiment.rule_test_scores()
        resampled.append(auc_table(experiment, every))
        judge(record, experiment, *resampled[-1])
        scores += [
            {"kind": "model" if n in MODELS else "rule", **r} for n, r in scored(experiment, every, resampled[-1])
        ]
        experiments.append(experiment)
    record.tables |= {"scores": scores, "paper": paper_rows()}
    record.write()
    return Result(config, record, experiments, resampled)


def scored(
    experiment: Experiment, every: Mapping[str, Sequence[Array]], everything: Resampled
) -> list[tuple[str, dict[str, Any]]]:
    """The score table's lines with their names, best AUC first."""
    lines = [(str(line["model or rule"]), line) for line in score_rows(experiment, every, everything)]
    return sorted(lines, key=lambda pair: -float(pair[1]["AUC all"]))


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
    for axis, experiment, (resamples, draws) in zip(axes[0], result.experiments, result.resampled, strict=True):
        intervals = {name: mean_interval(values, draws) for name, values in resamples.items()}
        order = sorted(intervals, key=lambda name: intervals[name].estimate)
        for at, name in enumerate(order):
            interval = intervals[name]
            kind = colour(name if name in MODELS else "rule")
            axis.plot([interval.low, interval.high], [at, at], color=kind, lw=2)
            axis.plot(interval.estimate, at, "o" if name in MODELS else "s", color=kind)
        axis.set_yticks(range(len(order)), order, fontsize=8)
        axis.set(title=experiment.name, xlabel="test AUC, 95 % interval")
        best = next(name for name in reversed(order) if name in MODELS)
        parts.append(
            f"{experiment.name}: best model {best} at {intervals[best].estimate:.3f}, "
            f"best of all {order[-1]} at {intervals[order[-1]].estimate:.3f}"
        )
    return figure(drawn, "Test AUC of models (dots) and rules (squares). " + "; ".join(parts) + ".")
