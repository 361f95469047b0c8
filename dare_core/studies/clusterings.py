"""Clusterings of what a study's models represent, and their tables: what the Discriminability chapter rests on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dare_core.discriminability import (
    Discriminability,
    Representation,
    cluster,
    discriminability,
    reduced_interval,
    representations,
    usable,
    user_groups,
)
from dare_core.metrics import Array
from dare_core.models import model_spec
from dare_core.studies.common import Experiment

KINDS: tuple[Representation, ...] = ("pooled history", "whole input")
RULE = "item in history, then decayed category"
"""The rule whose scores are clustered beside the models' representations."""
FORMS = {"target_aware": "both", "concatenation": "concatenation", "product": "product"}
"""What a head gets, as figure 10c names it."""


@dataclass
class Measured:
    """One model's values on one log: seeds x K-means seeds x numbers of clusters."""

    found: list[list[list[Discriminability]]]

    def values(self, what: Callable[[Discriminability], Array]) -> Array:
        """(S, G + 1, N) of an array (G + 1,) of each, mean over K-means seeds."""
        return np.array([[[what(one) for one in line] for line in seed] for seed in self.found]).mean(1).swapaxes(1, 2)

    def numbers(self, name: str) -> Array:
        """(S, N) of a number of each, mean over K-means seeds."""
        return np.array([[[getattr(one, name) for one in line] for line in seed] for seed in self.found]).mean(1)

    @property
    def plain(self) -> Array:
        """(S, G + 1, N) mutual information."""
        return self.values(lambda one: one.plain)

    @property
    def above_chance(self) -> Array:
        """(S, G + 1, N) mutual information less its chance level."""
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
    test = experiment.samples(1)["test"]
    numbers = usable(asked, test.size)
    groups = user_groups(test.users.numpy())

    def found(vectors: np.ndarray) -> list[list[Discriminability]]:
        flat = vectors.reshape(test.size, -1)
        return [
            [discriminability(cluster(flat, n, seed).reshape(test.items.shape), n, groups) for n in numbers]
            for seed in range(cluster_seeds)
        ]

    measured: dict[Representation, dict[str, Measured]] = {kind: {} for kind in KINDS}
    shares: dict[str, list[float]] = {name: [] for name in models}
    for name in models:
        seeds: dict[Representation, list[list[list[Discriminability]]]] = {kind: [] for kind in KINDS}
        for seed in experiment.seeds:
            model = experiment.runs[name, seed].model(experiment.log)
            vectors = representations(model, experiment.samples(seed)["test"], KINDS)
            pooled, whole = (vectors[kind].var((0, 1)).sum() for kind in KINDS)
            shares[name].append(float(pooled / whole))
            seeds["pooled history"].append(found(vectors["pooled history"]))
            same = vectors["whole input"].shape == vectors["pooled history"].shape
            seeds["whole input"].append(seeds["pooled history"][-1] if same else found(vectors["whole input"]))
        for kind in KINDS:
            measured[kind][name] = Measured(seeds[kind])
    rule = Measured([found(scores.astype(np.float32)) for scores in experiment.rule_test_scores()[RULE]])
    for kind in KINDS:
        measured[kind][RULE] = rule
    return View(experiment, numbers, measured, {name: float(np.mean(share)) for name, share in shares.items()})


def form_of(name: str) -> str:
    """What a model's head gets, in words."""
    return "–" if name == RULE else FORMS[model_spec(name).form]


def value_rows(view: View) -> list[dict[str, Any]]:
    """A line for each representation, model and number of clusters: means over seeds."""
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
    """A line for each model: mean over numbers of clusters of what both representations tell, best first."""
    rows = []
    for name in view.measured[KINDS[0]]:
        line: dict[str, Any] = {"log": view.experiment.name, "model or rule": name, "form": form_of(name)}
        for kind in KINDS:
            one = view.measured[kind][name]
            interval = reduced_interval(one.above_chance, lambda values: values.mean(-1))
            line |= {
                f"{kind}: less chance": interval.estimate,
                f"{kind}: 95 %": f"[{interval.low:.4f}, {interval.high:.4f}]",
                f"{kind}: MI": float(one.plain[:, 0].mean()),
                f"{kind}: normalised": float(one.numbers("normalised").mean()),
                f"{kind}: adjusted": float(one.numbers("adjusted").mean()),
            }
        line["pooled share of variance"] = view.share.get(name)
        rows.append(line)
    return sorted(rows, key=lambda line: -float(line[f"{KINDS[0]}: less chance"]))
