"""Clusterings of what a study's models represent, and their tables: what the Discriminability chapter rests on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dare_core.data.samples import Samples
from dare_core.evaluation.discriminability import (
    Discriminability,
    Representation,
    cluster,
    discriminability,
    representations,
    usable,
)
from dare_core.evaluation.intervals import interval
from dare_core.evaluation.metrics import Array
from dare_core.models.zoo import model_spec
from dare_core.studies.experiment import Experiment
from dare_core.studies.scores import columns

KINDS: tuple[Representation, ...] = ("pooled history", "whole input")
PRIMARY: Representation = "whole input"
"""The one of the paper's figure 10, by its axis."""
RULE = "item in history, then decayed category"
"""The rule whose scores are clustered beside the models' representations."""
FORMS = {"target_aware": "both", "concatenation": "concatenation", "product": "product"}
"""What a head gets, as figure 10c names it."""


Clusterings = list[list[Discriminability]]
"""Of one model and seed: K-means seeds x numbers of clusters."""


@dataclass
class Measured:
    """One model's values on one log, one entry per seed."""

    found: list[Clusterings]

    def values(self, what: Callable[[Discriminability], Array]) -> Array:
        """(S, 1 + G, N) of an array (1 + G,) of each, mean over K-means seeds."""
        return np.array([[[what(one) for one in line] for line in seed] for seed in self.found]).mean(1).swapaxes(1, 2)

    def numbers(self, name: str) -> Array:
        """(S, N) of a number of each, mean over K-means seeds."""
        return np.array([[[getattr(one, name) for one in line] for line in seed] for seed in self.found]).mean(1)

    @property
    def plain(self) -> Array:
        """(S, 1 + G, N) mutual information."""
        return self.values(lambda one: one.plain)

    @property
    def above_chance(self) -> Array:
        """(S, 1 + G, N) mutual information less its chance level."""
        return self.values(lambda one: one.above_chance)


@dataclass
class View:
    """One log: what was measured for each kind of representation and model; the rule stands in both kinds."""

    experiment: Experiment
    numbers: list[int]  # of clusters
    measured: dict[Representation, dict[str, Measured]]
    share: dict[str, float]  # of the pooled history in the variance of the whole input, mean over seeds


def measure(experiment: Experiment, models: Sequence[str], asked: tuple[int, ...], cluster_seeds: int) -> View:
    """Cluster the models' test representations, with the usable ones of the numbers of clusters asked for.

    A rule's scores are clustered in the same way.
    """
    experiment.train(models)
    tests = [experiment.samples(seed)["test"] for seed in experiment.seeds]
    numbers = usable(asked, min(test.size for test in tests))
    scores = experiment.rule_scores()[RULE]
    measured: dict[Representation, dict[str, Measured]] = {
        kind: {name: Measured([]) for name in (*models, RULE)} for kind in KINDS
    }
    shares: dict[str, list[float]] = {name: [] for name in models}
    for at, (seed, test) in enumerate(zip(experiment.seeds, tests, strict=True)):
        groups = experiment.groups(test)

        def found(vectors: np.ndarray, test: Samples = test, groups: np.ndarray | None = groups) -> Clusterings:
            flat = vectors.reshape(test.size, -1)
            return [
                [discriminability(cluster(flat, n, seed).reshape(test.items.shape), n, groups) for n in numbers]
                for seed in range(cluster_seeds)
            ]

        for name in models:
            model = experiment.runs[name, seed].model(experiment.log_of(seed))
            vectors = representations(model, test, KINDS)
            pooled, whole = (vectors[kind] for kind in KINDS)
            shares[name].append(float(pooled.var((0, 1)).sum() / whole.var((0, 1)).sum()))
            measured["pooled history"][name].found.append(found(pooled))
            same = pooled.shape == whole.shape  # with concatenation
            again = measured["pooled history"][name].found[-1] if same else found(whole)
            measured["whole input"][name].found.append(again)
        of_rule = found(scores[at].astype(np.float32))
        for kind in KINDS:
            measured[kind][RULE].found.append(of_rule)
    return View(experiment, numbers, measured, {name: float(np.mean(share)) for name, share in shares.items()})


def form_of(name: str) -> str:
    """What a model's head gets, in words."""
    return "–" if name == RULE else FORMS[model_spec(name).form]


def value_rows(view: View) -> list[dict[str, Any]]:
    """One row per representation, model and number of clusters: means over seeds."""
    rows = []
    for kind, models in view.measured.items():
        for name, one in models.items():
            plain, above = one.plain[:, 0].mean(0), one.above_chance[:, 0].mean(0)
            others = {what: one.numbers(what).mean(0) for what in ("spread", "normalised", "adjusted")}
            rows += [
                {
                    "log": view.experiment.name,
                    "representation": kind,
                    "model or rule": name,
                    "form": form_of(name),
                    "clusters": number,
                    "MI": plain[i],
                    "chance": plain[i] - above[i],
                    "less chance": above[i],
                    "spread of chance": others["spread"][i],
                    "normalised MI": others["normalised"][i],
                    "adjusted MI": others["adjusted"][i],
                }
                for i, number in enumerate(view.numbers)
            ]
    return rows


def summary_rows(view: View) -> list[dict[str, Any]]:
    """One row per model: mean over numbers of clusters of what both representations tell, best first."""
    rows = []
    for name in view.measured[KINDS[0]]:
        row: dict[str, Any] = {"log": view.experiment.name, "model or rule": name, "form": form_of(name)}
        for kind in KINDS:
            one = view.measured[kind][name]
            found = interval(one.above_chance.mean(-1))
            row |= columns(f"{kind}: less chance", found.estimate, found.low, found.high)
            row |= {
                f"{kind}: MI": float(one.plain[:, 0].mean()),
                f"{kind}: normalised": float(one.numbers("normalised").mean()),
                f"{kind}: adjusted": float(one.numbers("adjusted").mean()),
            }
        row["pooled share of variance"] = view.share.get(name)
        rows.append(row)
    return sorted(rows, key=lambda row: -float(row[f"{PRIMARY}: less chance"]))
