"""What the chapters that vary one setting share: lists of numbers as parameters, runs at another setting, and
differences of differences."""

from typing import Any

import numpy as np

from dare_core.intervals import Resamples
from dare_core.metrics import auc
from dare_core.rules import RULES, rule_features
from dare_core.runs import Run
from dare_core.samples import Samples, training_counts
from dare_core.studies.common import Experiment


def numbers(text: str) -> list[int]:
    """Whole numbers from 1 on, separated by commas, sorted and each once. Raises ValueError for anything else."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ValueError("expects whole numbers from 1 on, separated by commas")
    return sorted({int(part) for part in parts})


def minus(first: Resamples, second: Resamples) -> Resamples:
    """The difference of two numbers, bootstrapped with the same draws."""
    return first[0] - second[0], first[1] - second[1]


def samples_at(experiment: Experiment, seed: int, history: int) -> dict[str, Samples]:
    """The samples of a seed with another length of history: the same targets and the same negatives."""
    config = experiment.run_config("DARE", seed)
    return experiment.store.samples(
        config.model_copy(update={"samples": config.samples.model_copy(update={"history": history})})
    )


def runs_at(experiment: Experiment, model: str, history: int | None = None, **changes: Any) -> list[Run]:
    """Runs of a model, a seed each, at settings other than the study's own.

    `changes` are those of `Experiment.run_config`. What is trained already is read from the store.
    """
    found = []
    for seed in experiment.seeds:
        config = experiment.run_config(model, seed, **changes)
        if history is not None:
            samples = config.samples.model_copy(update={"history": history})
            config = config.model_copy(update={"samples": samples})
        found.append(experiment.store.get(config))
    return found


def best_rule(experiment: Experiment, history: int | None = None) -> tuple[str, float]:
    """The rule without learning of highest test AUC, mean over seeds: the level that a model must clear."""
    counts = training_counts(experiment.log)
    found: dict[str, list[float]] = {name: [] for name in RULES}
    for seed in experiment.seeds:
        test = samples_at(experiment, seed, history or experiment.config.history)["test"]
        features = rule_features(test, counts)
        for name, rule in RULES.items():
            found[name].append(auc(test.labels, rule(features)))
    best = max(found, key=lambda name: float(np.mean(found[name])))
    return best, float(np.mean(found[best]))
