"""Retrieval number and history length: AUC, and NDCG of retrieval, when fewer or more behaviours are retrieved
(claim D1; paper, appendix D.1) and when histories are shorter or longer (D2; appendix D.2)."""

from collections.abc import Mapping

import numpy as np

from dare_core.evaluation.intervals import Replicates
from dare_core.evaluation.metrics import Array
from dare_core.evaluation.relevance import information_gains
from dare_core.evaluation.retrieval import candidate_ndcg, retrieve, retrieve_by_rule
from dare_core.studies import settings
from dare_core.studies.attention import candidate_means
from dare_core.studies.experiment import Experiment
from dare_core.studies.settings import numbers
from dare_core.training.runs import Run

QUALITY_RULES = ("same category, then newest", "random")
"""Rules without learning whose retrieval is shown beside that of the models."""
KNOWN = 0.5
"""A length is studied where at least this share of the test targets has so many behaviours before it."""
Setting = tuple[str, int, int]
"""Model or rule, number of retrieved behaviours K, length of history N."""


Config = settings.RetrievalNumberConfig


def share_known(experiment: Experiment, length: int) -> float:
    """Share of the test targets with at least so many behaviours before them, mean over seeds."""
    tests = [experiment.samples(seed)["test"] for seed in experiment.seeds]
    return float(np.mean([float((test.row - test.start >= length).double().mean()) for test in tests]))


def usable_lengths(experiment: Experiment, config: Config) -> list[int]:
    """The lengths of history asked for that enough test targets of a log have."""
    return [length for length in numbers(config.lengths) if share_known(experiment, length) >= KNOWN]


def retrieval_quality(
    experiment: Experiment, config: Config, runs: Mapping[Setting, list[Run]]
) -> dict[Setting, Replicates]:
    """NDCG at K of what the models and two rules retrieve of N behaviours, by setting.

    Gains are the mutual information by which A3 is judged (`GainRule`), from training samples of the same N.
    """
    values: dict[Setting, list[Array]] = {}
    settings = dict.fromkeys((k, n) for _, k, n in runs)
    for index, seed in enumerate(experiment.seeds):
        for n in dict.fromkeys(n for _, n in settings):
            splits = experiment.samples(seed, history=n)
            gains = information_gains(splits["train"], splits["test"], config.rule)
            for k in (k for k, length in settings if length == n):
                found = {rule: retrieve_by_rule(rule, splits["test"], k, seed) for rule in QUALITY_RULES}
                for model in config.model_names:
                    trained = runs[model, k, n][index].model(experiment.log_of(seed))
                    found[model] = retrieve(trained, splits["test"], k, items=config.with_items)
                for name, retrieval in found.items():
                    ndcg = candidate_ndcg(gains.information, retrieval.order, gains.judged, config.published_ndcg)
                    values.setdefault((name, k, n), []).append(ndcg[..., -1])
    weights = [experiment.weights(experiment.samples(seed)["test"]) for seed in experiment.seeds]
    return {setting: candidate_means(seeds, weights) for setting, seeds in values.items()}
