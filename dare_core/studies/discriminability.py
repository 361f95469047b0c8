"""Discriminability: mutual information of clustered representations with the label (claims R1 and R2; paper,
section 4.4, figure 10)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dare_core.evaluation.discriminability import (
    Discriminability,
    Representation,
    cluster,
    discriminability,
    representations,
    usable,
)
from dare_core.evaluation.intervals import Interval, all_above, interval
from dare_core.evaluation.metrics import Array
from dare_core.models.zoo import model_spec
from dare_core.studies.experiment import Experiment

KINDS: tuple[Representation, ...] = ("pooled history", "whole input")
RULE = "item in history, then decayed category"
"""The rule without learning whose scores are clustered together with the models' representations."""
FORMS = {"target_aware": "both", "concatenation": "concatenation", "product": "product"}
"""What a head gets, as figure 10c names it."""


@dataclass
class ModelClusterings:
    """The clusterings of one model on one log: by seed, K-means seed and number of clusters."""

    found: list[list[list[Discriminability]]]

    def numbers(self, name: str) -> Array:
        """(S, N) of a number per clustering, or (S, N, 1 + G) of an array, mean over K-means seeds."""
        return np.array([[[getattr(one, name) for one in line] for line in seed] for seed in self.found]).mean(1)

    @property
    def plain(self) -> Array:
        """(S, 1 + G, N) mutual information."""
        return self.numbers("plain").swapaxes(1, 2)

    @property
    def above_chance(self) -> Array:
        """(S, 1 + G, N) mutual information less its chance level."""
        return self.numbers("above_chance").swapaxes(1, 2)


@dataclass
class LogClusterings:
    """The clusterings of all models on one log, by kind of representation; the rule's are in both kinds."""

    numbers: list[int]  # of clusters
    models: dict[Representation, dict[str, ModelClusterings]]
    share: dict[str, float]  # of the pooled history in the variance of the whole input, mean over seeds


def clusterings(
    vectors: np.ndarray, numbers: Sequence[int], cluster_seeds: int, groups: np.ndarray | None
) -> list[list[Discriminability]]:
    """Clusterings of vectors (H, C, W), or of scores (H, C), by K-means seed and number of clusters."""
    flat, shape = vectors.reshape(vectors.shape[0] * vectors.shape[1], -1), vectors.shape[:2]
    return [
        [discriminability(cluster(flat, number, seed).reshape(shape), number, groups) for number in numbers]
        for seed in range(cluster_seeds)
    ]


def cluster_models(
    experiment: Experiment, models: Sequence[str], asked: tuple[int, ...], cluster_seeds: int
) -> LogClusterings:
    """Cluster the test representations of trained models, and the scores of a rule in the same way.

    Numbers of clusters asked for that are too large for the log are left out.
    """
    tests = [experiment.samples(seed)["test"] for seed in experiment.seeds]
    numbers = usable(asked, min(test.size for test in tests))
    scores = experiment.rule_scores()[RULE]
    pooled_found, whole_found = ({name: ModelClusterings([]) for name in (*models, RULE)} for _ in KINDS)
    shares: dict[str, list[float]] = {name: [] for name in models}
    for at, (seed, test) in enumerate(zip(experiment.seeds, tests, strict=True)):
        how = (numbers, cluster_seeds, experiment.groups(test))
        for name in models:
            vectors = representations(experiment.runs[name, seed].model(experiment.log_of(seed)), test, KINDS)
            pooled, whole = (vectors[kind] for kind in KINDS)
            shares[name].append(float(pooled.var((0, 1)).sum() / whole.var((0, 1)).sum()))
            of_pooled = clusterings(pooled, *how)
            pooled_found[name].found.append(of_pooled)
            same = pooled.shape == whole.shape  # with concatenation
            whole_found[name].found.append(of_pooled if same else clusterings(whole, *how))
        of_rule = clusterings(scores[at].astype(np.float32), *how)
        for found in (pooled_found, whole_found):
            found[RULE].found.append(of_rule)
    share = {name: float(np.mean(values)) for name, values in shares.items()}
    return LogClusterings(numbers, {"pooled history": pooled_found, "whole input": whole_found}, share)


def form_of(name: str) -> str:
    """What a model's head gets, as figure 10c names it; a dash for the rule."""
    return "–" if name == RULE else FORMS[model_spec(name).form]


Weights = Mapping[str, float]
"""A comparison: the weight of each model's mutual information in a sum."""
Reduce = Callable[[Array], Interval]
"""The interval of differences (S, 1 + G, N) over N numbers of clusters."""


def mean(differences: Array) -> Interval:
    """Mean over numbers of clusters."""
    return interval(differences.mean(-1))


def at_every(differences: Array) -> Interval:
    """At every number of clusters: the smallest difference, as an intersection-union test."""
    return all_above({str(n): differences[..., n] for n in range(differences.shape[-1])})


R1: dict[str, tuple[Weights, Reduce]] = {
    "mi_dare_minus_twin": ({"DARE": 1, "TWIN": -1}, at_every),
    "mi_twin_4e_minus_twin": ({"TWIN-4E": 1, "TWIN": -1}, mean),
    "mi_twin_minus_din": ({"TWIN": 1, "DIN": -1}, mean),
}
R2: dict[str, tuple[Weights, Reduce]] = {
    "mi_tr_minus_concatenation": ({"DARE": 0.5, "TWIN": 0.5, "DARE (w/o TR)": -0.5, "TWIN (w/o TR)": -0.5}, mean),
    "mi_tr_gap_minus_decoupling_gap": ({"TWIN": 1, "DARE (w/o TR)": -1}, mean),
    "mi_dare_minus_twin_concatenation": ({"DARE (w/o TR)": 1, "TWIN (w/o TR)": -1}, mean),
}
"""The gap of target-aware representation is the mean over both models, that of decoupling the mean over both forms:
their difference is TWIN minus DARE (w/o TR)."""
SUFFIXES: dict[Representation, str] = {"whole input": "_whole_input", "pooled history": ""}
"""Ending of a quantity's name by what is clustered, the paper's figure first."""


def compare(models: Mapping[str, ModelClusterings], weights: Weights, reduce: Reduce) -> tuple[Interval, Interval]:
    """A comparison of models: the interval of their mutual information less its chance level, and of the plain one."""
    used = [(models[name], weight) for name, weight in weights.items()]
    less_chance = np.sum([weight * one.above_chance for one, weight in used], 0)
    return reduce(less_chance), reduce(np.sum([weight * one.plain for one, weight in used], 0))
