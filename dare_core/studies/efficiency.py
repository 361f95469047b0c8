"""What a cheaper search costs: measured search time when the searched embedding shrinks (claim E1; paper, section 4.5,
figures 11c and 11d), and quality of retrieval when fewer or more behaviours are retrieved (D1; appendix D.1) of shorter
or longer histories (D2; appendix D.2)."""

from collections.abc import Mapping, Sequence

import numpy as np

from dare_core.evaluation.intervals import Interval, Replicates, ratio_interval
from dare_core.evaluation.metrics import Array
from dare_core.evaluation.relevance import information_gains
from dare_core.evaluation.retrieval import candidate_ndcg, retrieve, retrieve_by_rule
from dare_core.schedule import measuring
from dare_core.studies.attention import candidate_means
from dare_core.studies.experiment import Experiment
from dare_core.studies.search_stage import SearchTime, measure
from dare_core.studies.settings import RetrievalNumberConfig, SearchEfficiencyConfig
from dare_core.training.runs import Run

QUALITY_RULES = ("same category, then newest", "random")
"""Rules without learning whose retrieval is shown beside that of the models."""
Setting = tuple[str, int, int]
"""Model or rule, number of retrieved behaviours K, length of history N."""


def search_times(config: SearchEfficiencyConfig) -> dict[int, SearchTime]:
    """Measured search times by attention size K_A, while no model of the same store is trained."""
    sizes = {part for size in config.sizes for part in config.attention_sizes(size).values()}
    with measuring():
        found = measure(config.search_length, sorted(sizes, reverse=True), config.search_rounds, top_k=config.top_k)
    return {time.size: time for time in found}


def time_ratio(shorter: SearchTime, longer: SearchTime) -> Interval:
    """Search time of one attention size over another's: geometric mean over rounds of the ratio within a round.

    The interval is over rounds (Student's t on the log scale): the variation of repeated measurements in one session
    on one machine, and nothing else.
    """
    return ratio_interval(shorter.searching[:, None], longer.searching[:, None])


def share_known(experiment: Experiment, length: int) -> float:
    """Share of the test targets with at least so many behaviours before them, mean over seeds."""
    tests = [experiment.samples(seed)["test"] for seed in experiment.seeds]
    return float(np.mean([float((test.row - test.start >= length).double().mean()) for test in tests]))


def retrieval_quality(
    experiment: Experiment, config: RetrievalNumberConfig, runs: Mapping[Setting, Sequence[Run]]
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
