"""Projection capacity in language: losses of a character-level GPT with and without query, key and value maps, for
claim P3 (paper, figure 5)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dare_core.evaluation.intervals import Interval, Replicates, interval, leave_out, user_groups
from dare_core.language.gpt import KINDS, Kind
from dare_core.language.runs import LanguageRun
from dare_core.studies import settings

LARGE = 16
"""Sizes above this have enough capacity, says the paper."""
WITH, WITHOUT, WIDER = KINDS


Config = settings.LanguageConfig


@dataclass
class Comparison:
    """Validation losses of every kind, size and seed. Stretches of text play the part that users play elsewhere."""

    runs: Mapping[tuple[Kind, int, int], LanguageRun]  # by kind, size, seed
    sizes: list[int]  # largest first
    seeds: range
    replicates: dict[tuple[Kind, int], Replicates]  # validation loss

    @classmethod
    def of(cls, runs: Mapping[tuple[Kind, int, int], LanguageRun]) -> "Comparison":
        """The comparison of runs; every combination of kind, size and seed must be present."""
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

    def runs_of(self, kind: Kind, size: int) -> list[LanguageRun]:
        """The runs of a kind and size, one per seed."""
        return [self.runs[kind, size, seed] for seed in self.seeds]

    def gap(self, sizes: Sequence[int], kind: Kind = WITHOUT) -> Replicates:
        """(S, 1 + G) loss of a kind minus the loss with maps, mean over sizes, paired by seed and by stretch."""
        return np.mean([self.replicates[kind, size] - self.replicates[WITH, size] for size in sizes], axis=0)

    def claims(self) -> dict[str, Interval]:
        """P3's quantities, those that the sizes allow."""
        large = [size for size in self.sizes if size > LARGE]
        small = [size for size in self.sizes if size <= LARGE]
        found = {}
        if large and small:
            found["gap_small_minus_large"] = interval(self.gap(small) - self.gap(large))
        if large:
            found["loss_gap_above_16"] = interval(self.gap(large))
        return found

    def shape(self, size: int) -> tuple[str, str, str]:
        """What the paper's figure shows at a size, what the gap's interval shows here, and whether they match."""
        gap = interval(self.gap([size]))
        side = "maps help" if gap.low > 0 else "maps harm" if gap.high < 0 else "no gap to be seen"
        expected = "maps help" if size > LARGE else "no gap to be seen"
        undecided = expected == "maps help" and side == "no gap to be seen"
        return expected, side, "undecided" if undecided else "yes" if side == expected else "no"
