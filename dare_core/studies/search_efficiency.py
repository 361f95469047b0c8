"""Search efficiency: AUC and measured search time when the searched embedding shrinks (claim E1; paper,
section 4.5, figures 11c and 11d)."""

from dare_core.evaluation.intervals import Interval, ratio_interval
from dare_core.evaluation.search_stage import SearchTime, measure
from dare_core.schedule import measuring
from dare_core.studies import settings

Config = settings.SearchEfficiencyConfig


def search_times(config: Config) -> dict[int, SearchTime]:
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
