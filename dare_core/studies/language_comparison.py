"""The numbers of the language chapter: losses and gaps by size, with intervals over stretches of text and seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dare_core.intervals import Draws, Interval, Resamples, difference_interval, from_resamples, holm
from dare_core.language import KINDS, Kind
from dare_core.language_runs import LanguageRun

LARGE = 16
"""Sizes above this have capacity enough, says the paper."""
WITH, WITHOUT, WIDER = KINDS


@dataclass
class Comparison:
    """Runs of every kind, size and seed. Stretches of validation text play the part that users play elsewhere."""

    runs: Mapping[tuple[Kind, int, int], LanguageRun]
    sizes: list[int]  # largest first
    seeds: range
    draws: Draws
    resampled: dict[tuple[Kind, int], Resamples]

    @classmethod
    def of(cls, runs: Mapping[tuple[Kind, int, int], LanguageRun]) -> "Comparison":
        """The comparison of runs by kind, size and seed; every combination must be there."""
        sizes = sorted({size for _, size, _ in runs}, reverse=True)
        seeds = range(1, max(seed for _, _, seed in runs) + 1)
        draws = Draws.make(len(next(iter(runs.values())).losses), len(seeds))
        resampled = {}
        for kind in KINDS:
            for size in sizes:
                losses = np.stack([runs[kind, size, seed].losses for seed in seeds])  # (S, W)
                resampled[kind, size] = losses.mean(1), losses @ draws.users.T / losses.shape[1]
        return cls(runs, sizes, seeds, draws, resampled)

    @property
    def flat(self) -> int:
        """Number of trainings whose loss was flat before their final decay."""
        return sum(bool(run.flat) for run in self.runs.values())

    def gap(self, sizes: Sequence[int], kind: Kind = WITHOUT) -> Resamples:
        """Loss of a kind minus the loss with maps, mean over sizes, paired by seed and by stretch."""
        parts = [(self.resampled[kind, size], self.resampled[WITH, size]) for size in sizes]
        plain = np.mean([first[0] - second[0] for first, second in parts], axis=0)
        return plain, np.mean([first[1] - second[1] for first, second in parts], axis=0)

    def claims(self) -> dict[str, Interval]:
        """P3's quantities, as far as the sizes allow, corrected by Holm's method as one claim of two comparisons."""
        large = [size for size in self.sizes if size > LARGE]
        small = [size for size in self.sizes if size <= LARGE]
        if not large:
            return {}
        gap_large = self.gap(large)
        pairs = {"loss_gap_above_16": (gap_large, (0 * gap_large[0], 0 * gap_large[1]))}
        if small:
            pairs["gap_small_minus_large"] = self.gap(small), gap_large
        return holm(pairs, self.draws)

    def loss_rows(self) -> list[dict[str, Any]]:
        """Validation loss by size and kind."""
        rows = []
        for size in self.sizes:
            for kind in KINDS:
                plain, drawn = self.resampled[kind, size]
                own = [self.runs[kind, size, seed] for seed in self.seeds]
                interval = from_resamples(float(plain.mean()), self.draws.mean_over_seeds(drawn), len(own))
                rows.append(
                    {
                        "size": size,
                        "maps": kind,
                        "loss": interval.estimate,
                        "low": interval.low,
                        "high": interval.high,
                        "parameters": own[0].parameters["all"],
                        "iterations, mean": round(float(np.mean([run.history[-1].step for run in own]))),
                        "flat before decay": f"{sum(bool(run.flat) for run in own)} of {len(own)}",
                    }
                )
        return rows

    def gap_rows(self) -> list[dict[str, Any]]:
        """Loss without maps minus with, by size; the same for the wider MLP."""
        rows = []
        for size in self.sizes:
            for kind in (WITHOUT, WIDER):
                by_seed = self.gap([size], kind)[0]
                interval = difference_interval(self.resampled[kind, size], self.resampled[WITH, size], self.draws)
                rows.append(
                    {
                        "size": size,
                        "maps": kind,
                        "minus with": interval.estimate,
                        "low": interval.low,
                        "high": interval.high,
                        "detectable": interval.detectable,
                        "least of a seed": float(by_seed.min()),
                        "most of a seed": float(by_seed.max()),
                    }
                )
        return rows

    def shape_rows(self) -> list[dict[str, Any]]:
        """The paper's figure in words, size by size, and whether the gap's interval agrees."""
        rows = []
        for line in self.gap_rows():
            if line["maps"] != WITHOUT:
                continue
            side = "maps help" if line["low"] > 0 else "maps harm" if line["high"] < 0 else "no gap to be seen"
            expected = "maps help" if line["size"] > LARGE else "no gap to be seen"
            undecided = expected == "maps help" and side == "no gap to be seen"
            rows.append(
                {
                    "size": line["size"],
                    "paper, Fig. 5": expected,
                    "here": side,
                    "matched": "undecided" if undecided else "yes" if side == expected else "no",
                }
            )
        return rows

    def curve_rows(self) -> list[dict[str, Any]]:
        """The learning curves, a line each evaluation."""
        return [
            {
                "size": size,
                "maps": kind,
                "seed": seed,
                "iteration": line.step,
                "learning rate": line.rate,
                "training loss": line.train_loss,
                "validation loss": line.validation_loss,
            }
            for size in self.sizes
            for kind in KINDS
            for seed in self.seeds
            for line in self.runs[kind, size, seed].history
        ]

    def parameter_rows(self) -> list[dict[str, Any]]:
        """Parameters by size and kind."""
        return [
            {"size": size, "maps": kind, **self.runs[kind, size, 1].parameters} for size in self.sizes for kind in KINDS
        ]
