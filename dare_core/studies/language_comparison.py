"""The numbers of the language chapter: losses and gaps by size, with intervals over stretches of text and seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dare_core.evaluation.intervals import Interval, Replicates, interval, leave_out, user_groups
from dare_core.language.gpt import KINDS, Kind
from dare_core.language.runs import LanguageRun
from dare_core.studies.scores import columns

LARGE = 16
"""Sizes above this have capacity enough, says the paper."""
WITH, WITHOUT, WIDER = KINDS


@dataclass
class Comparison:
    """Runs of every kind, size and seed. Stretches of validation text play the part that users play elsewhere."""

    runs: Mapping[tuple[Kind, int, int], LanguageRun]
    sizes: list[int]  # largest first
    seeds: range
    replicates: dict[tuple[Kind, int], Replicates]  # validation loss

    @classmethod
    def of(cls, runs: Mapping[tuple[Kind, int, int], LanguageRun]) -> "Comparison":
        """The comparison of runs by kind, size and seed; every combination must be there."""
        sizes = sorted({size for _, size, _ in runs}, reverse=True)
        seeds = range(1, max(seed for _, _, seed in runs) + 1)
        stretches = len(next(iter(runs.values())).losses)
        weights = leave_out(user_groups(np.arange(stretches)), stretches)  # (1 + G, W)
        weights /= weights.sum(1, keepdims=True)
        replicates = {
            (kind, size): np.stack([runs[kind, size, seed].losses for seed in seeds]) @ weights.T
            for kind in KINDS
            for size in sizes
        }
        return cls(runs, sizes, seeds, replicates)

    @property
    def stretches(self) -> int:
        """Number of stretches of validation text."""
        return len(next(iter(self.runs.values())).losses)

    @property
    def flat(self) -> int:
        """Number of trainings whose loss was flat before their final decay."""
        return sum(bool(run.flat) for run in self.runs.values())

    def gap(self, sizes: Sequence[int], kind: Kind = WITHOUT) -> Replicates:
        """Loss of a kind minus the loss with maps, mean over sizes, paired by seed and by stretch."""
        return np.mean([self.replicates[kind, size] - self.replicates[WITH, size] for size in sizes], axis=0)

    def claims(self) -> dict[str, Interval]:
        """P3's quantities, as far as the sizes allow."""
        large = [size for size in self.sizes if size > LARGE]
        small = [size for size in self.sizes if size <= LARGE]
        found = {}
        if large and small:
            found["gap_small_minus_large"] = interval(self.gap(small) - self.gap(large))
        if large:
            found["loss_gap_above_16"] = interval(self.gap(large))
        return found

    def loss_rows(self) -> list[dict[str, Any]]:
        """Validation loss by size and kind."""
        rows = []
        for size in self.sizes:
            for kind in KINDS:
                own = [self.runs[kind, size, seed] for seed in self.seeds]
                loss = interval(self.replicates[kind, size])
                rows.append(
                    {
                        "size": size,
                        "maps": kind,
                        **columns("loss", loss.estimate, loss.low, loss.high),
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
                values = self.gap([size], kind)
                gap = interval(values)
                rows.append(
                    {
                        "size": size,
                        "maps": kind,
                        **columns("minus with", gap.estimate, gap.low, gap.high),
                        "detectable": gap.detectable,
                        **{f"seed {seed}": float(own) for seed, own in zip(self.seeds, values[:, 0], strict=True)},
                    }
                )
        return rows

    def shape_rows(self) -> list[dict[str, Any]]:
        """The paper's figure in words, size by size, and whether the gap's interval agrees."""
        rows = []
        for size in self.sizes:
            gap = interval(self.gap([size]))
            side = "maps help" if gap.low > 0 else "maps harm" if gap.high < 0 else "no gap to be seen"
            expected = "maps help" if size > LARGE else "no gap to be seen"
            undecided = expected == "maps help" and side == "no gap to be seen"
            rows.append(
                {
                    "size": size,
                    "paper, Fig. 5": expected,
                    "here": side,
                    "matched": "undecided" if undecided else "yes" if side == expected else "no",
                }
            )
        return rows

    def curve_rows(self) -> list[dict[str, Any]]:
        """The learning curves, one row per evaluation."""
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
