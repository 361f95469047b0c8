"""The analyses of the chapters at the size of the Taobao log: seconds and memory.

    .venv/bin/python benchmarks/analyses.py

Samples are drawn at random with Taobao's counts and the popularity of the generated world: 86,000 users, 19
targets each with two negatives. Every analysis has a process of its own, whose peak memory counts the samples
too. The result is written to `benchmarks/results/analyses.json`, which the Reproducibility chapter shows.
"""

import argparse
import dataclasses
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from common import figure_line, write_figures

from dare_core.data.samples import Clicks, Samples
from dare_core.data.worlds import WorldConfig
from dare_core.evaluation.discriminability import CLUSTERS, cluster, discriminability
from dare_core.evaluation.intervals import user_groups
from dare_core.evaluation.relevance import GainRule, cells, relevance_counts
from dare_core.evaluation.retrieval import ndcg, retrieve_by_rule

OUT = Path(__file__).parent / "results" / "analyses.json"
USERS, TARGETS, CANDIDATES, CATEGORIES, ITEMS, LENGTH, HISTORY = 86_000, 19, 3, 9_407, 4_068_790, 300, 200


def taobao_samples(users: int) -> Samples:
    """Training samples of so many users, each with 19 targets."""
    world = WorldConfig()
    popularity = (np.arange(CATEGORIES) + world.category_shift) ** -world.category_exponent
    cumulative = np.cumsum(popularity / popularity.sum())
    generator = np.random.default_rng(0)

    def categories(*shape: int) -> torch.Tensor:
        drawn = np.searchsorted(cumulative, generator.random(shape, dtype=np.float32)).astype(np.int32)
        return torch.from_numpy(drawn.clip(max=CATEGORIES - 1) + 1)

    def items(*shape: int) -> torch.Tensor:
        return torch.from_numpy(generator.integers(1, ITEMS + 1, shape, dtype=np.int32))

    owner = torch.arange(users).repeat_interleave(TARGETS)
    start = owner * LENGTH
    row = start + LENGTH - 3 - 5 * torch.arange(TARGETS).repeat(users)
    clicks = Clicks(items(users * LENGTH), categories(users * LENGTH))
    candidates = items(len(row), CANDIDATES), categories(len(row), CANDIDATES)
    candidates[0][:, 0], candidates[1][:, 0] = clicks.items[row], clicks.categories[row]
    everywhere = torch.ones(candidates[0].shape, dtype=torch.bool)
    return Samples(clicks, HISTORY, owner, row, start, *candidates, everywhere, everywhere)


def counted(categories: int, samples: Samples) -> Callable[[], object]:
    """Mutual information of label and behaviour by position, for the most frequent target categories."""
    return lambda: relevance_counts(samples, categories).mutual_information()


def ranked(samples: Samples) -> Callable[[], object]:
    """NDCG at 1..20 of what is retrieved for one target of every user, gains counted from all samples."""
    last = np.arange(0, len(samples), TARGETS)
    fields = {field.name: getattr(samples, field.name) for field in dataclasses.fields(samples)}
    test = Samples(**{k: v[last] if isinstance(v, torch.Tensor) else v for k, v in fields.items()})
    order = retrieve_by_rule("random", test, 20).order

    def mean() -> np.ndarray:
        total, count = np.zeros(order.shape[-1]), 0
        rule = GainRule(700, 10, HISTORY)
        for found in cells(samples, test, rule.least_samples):
            gains = np.where(rule.thin(found), 0.0, found.information)
            values = ndcg(gains, order[found.row, found.candidate])
            known = ~np.isnan(values[:, -1])
            total, count = total + values[known].sum(0), count + int(known.sum())
        return total / max(count, 1)

    return mean


def clustered(samples: Samples) -> Callable[[], object]:
    """K-means of 48 numbers a sample by every published number of clusters, and their information on the label."""
    vectors = np.random.default_rng(0).standard_normal((samples.size, 48), dtype=np.float32)
    groups = user_groups(samples.users.numpy())

    def analyse() -> None:
        for number in CLUSTERS:
            discriminability(cluster(vectors, number, 0).reshape(samples.items.shape), number, groups)

    return analyse


ANALYSES: dict[str, Callable[[Samples], Callable[[], object]]] = {
    "mutual information, 10 target categories": partial(counted, 10),
    "mutual information, 100 target categories": partial(counted, 100),
    "NDCG of retrieval of one target a user, gains from all": ranked,
    f"K-means information, {len(CLUSTERS)} numbers of clusters, 2 to 1,000": clustered,
}


def measure(name: str, users: int, rounds: int) -> tuple[list[float], float]:
    """Seconds of each round, and the process's peak memory in GB. A small warm-up compiles what is compiled."""
    ANALYSES[name](taobao_samples(max(200, users // 100)))()
    analyse = ANALYSES[name](taobao_samples(users))
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        analyse()
        seconds.append(time.perf_counter() - started)
    unit = 1 if sys.platform == "darwin" else 1_024  # bytes there, kilobytes elsewhere
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=USERS)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    figures = []
    for name in ANALYSES:
        with multiprocessing.get_context("spawn").Pool(1) as process:
            seconds, memory = process.apply(measure, (name, options.users, options.rounds))
        what = f"{name}, {options.users * TARGETS * CANDIDATES:,} samples"
        figures.append(figure_line(f"{what}: seconds", seconds))
        figures.append(figure_line(f"{what}: peak memory, GB", [memory]))
        print(f"{what}: {statistics.median(seconds):.2f} s, {memory:.2f} GB")
    write_figures(OUT, "python benchmarks/analyses.py", figures)


if __name__ == "__main__":
    main()
