"""What the chapters that vary one setting share: lists of numbers as parameters, and each model's own best setting."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from dare_core.data.samples import training_counts
from dare_core.evaluation.baselines import RULES, rule_features
from dare_core.evaluation.intervals import Interval
from dare_core.evaluation.metrics import auc
from dare_core.files import canonical_json, short_hash
from dare_core.report.stored import stored_rows
from dare_core.studies.experiment import Experiment
from dare_core.training.loop import STEPS_AN_EPOCH

FEW_AND_MANY = (5, 100)
"""Retrieved behaviours that D1 compares."""
NOT_SEARCHED = "not computed at own best settings"


def best_rule(experiment: Experiment, history: int | None = None) -> tuple[str, float]:
    """The rule without learning of highest validation AUC (mean over seeds), with its test AUC, for histories of
    another length too."""
    found: dict[str, dict[str, list[float]]] = {"validation": {}, "test": {}}
    for seed in experiment.seeds:
        splits = experiment.samples(seed, history=history or experiment.config.history)
        counts = training_counts(experiment.log_of(seed))
        for split, values in found.items():
            features = rule_features(splits[split], counts)
            for name, rule in RULES.items():
                values.setdefault(name, []).append(auc(splits[split].labels, rule(features)))
    best = max(RULES, key=lambda name: float(np.mean(found["validation"][name])))
    return best, float(np.mean(found["test"][best]))


def steps_to_batch(training_samples: int, steps: int) -> int:
    """Samples per step that give so many steps per epoch."""
    return max(2, round(training_samples / steps))


def made_with(experiment: Experiment) -> dict[str, Any]:
    """By what a row of a search can be told to be of the same log, embedding size, epochs and protocol: samples, K,
    initial values, and whether the published code's habits are on."""
    config = experiment.config
    protocol = {
        "samples": config.samples_for(experiment.log).model_dump(mode="json"),
        "top_k": config.top_k,
        "initial_scale": config.initial_scale,
        "official_compat": config.official_compat,
    }
    return {
        "fingerprint": experiment.fingerprint,
        "size": config.size,
        "epochs": config.epochs,
        "protocol": short_hash(canonical_json(protocol)),
    }


def searched(experiment: Experiment, rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Rows of a search of this very log by this very protocol: another log's best setting is not its."""
    asked = made_with(experiment)
    return [row for row in rows if all(row.get(key) == value for key, value in asked.items())]


def own_best(experiment: Experiment, model: str, recipe: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The training settings of a model's highest validation AUC among the rows of the chapter *Method*'s search; None
    where this log was not searched."""
    found = [row for row in searched(experiment, recipe) if row["own best grid"] and row["model"] == model]
    if not found:
        return None
    best = max(found, key=lambda row: float(row["validation AUC"]))
    steps = best["steps per epoch"]  # the recipe's own number gives the recipe's batch: the same runs
    batch = None if steps == STEPS_AN_EPOCH else steps_to_batch(experiment.training_samples, steps)
    return {"learning_rate": best["learning rate"], "batch_size": batch}


def at_own_best(experiment: Experiment, claim: str, quantity: str) -> Interval | None:
    """A claim's quantity with DARE and TWIN each at its own best setting, as the chapter *Method* has stored it; None
    where this log was not searched."""
    rows = searched(experiment, stored_rows("method", "own_best"))
    names = [entry.name for entry in fields(Interval)]
    for row in rows:
        if (row["claim"], row["quantity"]) == (claim, quantity):
            return Interval(**{name: row[name] for name in names})
    return None
