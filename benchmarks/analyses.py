"""The analyses of the chapters at the size of the Taobao log: seconds and memory.

    .venv/bin/python benchmarks/analyses.py

Samples are drawn at random with Taobao's counts and the popularity of the generated world: 86,000 users, 19
targets each with two negatives. Every analysis has a process of its own, whose peak memory counts the samples
too. The result is written to `benchmarks/results/analyses.json`, which the Reproducibility chapter shows.
"""

import argparse
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from dare_core.benchmarking import figure_line, write_figures
from dare_core.data.world import WorldConfig
from dare_core.relevance import relevance_counts
from dare_core.samples import Clicks, Samples

OUT = Path(__file__).parent / "results" / "analyses.json"
USERS, TARGETS, CANDIDATES, CATEGORIES, ITEMS, LENGTH, HISTORY = 86_000, 19, 3, 9_407, 4_068_790, 300, 200
ANALYSES: dict[str, Callable[[Samples], object]] = {
    f"mutual information, {categories} categories": lambda samples, n=categories: (  # type: ignore[misc]
        relevance_counts(samples, n).mutual_information()
    )
    for categories in (10, 100)
}


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


def measure(name: str, users: int, rounds: int) -> tuple[list[float], float]:
    """Seconds of each round after the first, and the process's peak memory in GB."""
    samples = taobao_samples(users)
    seconds = []
    for _ in range(rounds + 1):
        started = time.perf_counter()
        ANALYSES[name](samples)
        seconds.append(time.perf_counter() - started)
    unit = 1 if sys.platform == "darwin" else 1_024  # bytes there, kilobytes elsewhere
    return seconds[1:], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


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
