"""Intervals of a statistic over users and training seeds, or over worlds; several comparisons that make one claim.

Everything starts from *replicates*: an array (S, 1 + G) with one row per training seed; column 0 is the statistic of
all users, column g the statistic without the g-th group of them. On a generated log each seed has a world of its
own, the world is the unit, and there are no groups: (W, 1). Differences, ratios and means of statistics are then
plain arithmetic on arrays, paired by seed and by users.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import brentq
from scipy.stats import nct
from scipy.stats import t as student

from dare_core.evaluation.metrics import Array

Replicates = Array
"""(S, 1 + G): a statistic per seed, of all users and then without each group of them."""
LEVEL = 0.95
POWER = 0.8
GROUPS = 50
"""Groups of users that are left out in turn."""


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval. `logarithmic`: of a ratio; its standard error is on the log scale."""

    estimate: float
    low: float
    high: float
    standard_error: float
    freedom: float  # degrees of freedom of Student's t
    seeds: int
    level: float = LEVEL
    logarithmic: bool = False

    @property
    def detectable(self) -> float:
        """The smallest difference (of a ratio: of its logarithm) that such a comparison finds with a power of 80 %,
        at the interval's own level."""
        if not self.standard_error > 0:
            return self.standard_error
        return float(brentq(lambda effect: self.power(effect) - POWER, 0, 1e3 * self.standard_error))

    def power(self, effect: float) -> float:
        """Probability that the interval excludes 0 on the side of a true effect of this size (of a ratio: of its
        logarithm)."""
        if not self.standard_error > 0:
            return 1.0
        quantile = student.ppf((1 + self.level) / 2, self.freedom)
        return float(nct.sf(quantile, min(self.freedom, 1e4), abs(effect) / self.standard_error))

    def __str__(self) -> str:
        return f"{self.estimate:.4f} [{self.low:.4f}, {self.high:.4f}]"


UNKNOWN = Interval(*(float("nan"),) * 5, 0)
"""Where a statistic does not exist."""


def user_groups(users: np.ndarray, groups: int = GROUPS, seed: int = 0) -> np.ndarray:
    """(H,) random group from 0 of each target's user, at most `groups`: users of one group are left out together."""
    different, number = np.unique(users, return_inverse=True)
    return (np.random.default_rng(seed).permutation(len(different)) % min(groups, len(different)))[number]


def leave_out(groups: np.ndarray | None, size: int) -> Array:
    """(1 + G, size) weights of 1: of all, then of all but each group, of `groups` (size,). Without groups (1, size).

    >>> leave_out(np.array([0, 1, 1]), 3).tolist()
    [[1.0, 1.0, 1.0], [0.0, 1.0, 1.0], [1.0, 0.0, 0.0]]
    """
    if groups is None:
        return np.ones((1, size))
    return np.concatenate([np.ones((1, size)), groups[None] != np.arange(groups.max() + 1)[:, None]])


def interval(replicates: Replicates, level: float = LEVEL) -> Interval:
    """The mean over seeds, with its interval.

    With groups of users: a jackknife over users and one over seeds, their variances added, Student's t with
    Satterthwaite's degrees of freedom, because three seeds say little about their own spread. What the seed moves
    in a user's samples counts in both parts, so that the interval is rather too wide than too narrow. Without
    groups: Student's t over worlds. With a single seed it is over users alone.

    >>> str(interval(np.array([[0.1], [0.2], [0.3]])))
    '0.2000 [-0.0484, 0.4484]'
    """
    seeds, columns = replicates.shape
    if not np.isfinite(replicates[:, 0]).all():
        return replace(UNKNOWN, seeds=seeds)
    users, own = replicates[:, 1:].mean(0), replicates[:, 0]
    parts = []  # variance of the mean, degrees of freedom
    if len(users) > 1:
        parts.append(((len(users) - 1) * float(users.var()), len(users) - 1))
    if seeds > 1:
        parts.append((float(own.var(ddof=1)) / seeds, seeds - 1))
    variance = sum(part for part, _ in parts)
    squares = sum(part**2 / freedom for part, freedom in parts)
    freedom = variance**2 / squares if squares > 0 else float(sum(freedom for _, freedom in parts) or 1)
    error = variance**0.5 if parts else float("nan")
    margin = float(student.ppf((1 + level) / 2, freedom)) * error
    estimate = float(own.mean())
    return Interval(estimate, estimate - margin, estimate + margin, error, freedom, seeds, level)


def ratio_interval(first: Replicates, second: Replicates, level: float = LEVEL) -> Interval:
    """Geometric mean over seeds of first / second, with an interval made on the log scale.

    >>> ratio_interval(np.array([[2.0], [4.0]]), np.array([[1.0], [1.0]])).estimate.__round__(4)
    2.8284
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        logarithm = interval(np.log(first) - np.log(second), level)
    estimate, low, high = (float(np.exp(value)) for value in (logarithm.estimate, logarithm.low, logarithm.high))
    return replace(logarithm, estimate=estimate, low=low, high=high, logarithmic=True)


def wilson(share: float, count: int, level: float = LEVEL) -> Interval:
    """Wilson's interval (1927) of a share of `count` independent cases."""
    z = float(student.ppf((1 + level) / 2, 1e6))
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * ((share * (1 - share) + z**2 / (4 * count)) / count) ** 0.5
    return Interval(share, max(middle - half, 0.0), min(middle + half, 1.0), half / z, 1e6, 1, level)


def holm(comparisons: Mapping[str, Replicates]) -> dict[str, Interval]:
    """Intervals of several differences by Holm's step-down correction.

    The difference that lies most standard errors from 0 is judged at level 1 - 0.05 / m, the next at
    1 - 0.05 / (m - 1), and so on; from the first whose interval contains 0, the level stays.
    """

    def p_value(name: str) -> float:
        part = interval(comparisons[name])
        return float(2 * student.sf(abs(part.estimate) / max(part.standard_error, 1e-300), part.freedom))

    corrected: dict[str, Interval] = {}
    left = len(comparisons)
    for name in sorted(comparisons, key=p_value):
        corrected[name] = interval(comparisons[name], 1 - (1 - LEVEL) / left)
        if not corrected[name].low <= 0 <= corrected[name].high:
            left = max(left - 1, 1)
    return {name: corrected[name] for name in comparisons}


def all_above(comparisons: Mapping[str, Replicates]) -> Interval:
    """*Above 0 in each*: the smallest difference, as an intersection-union test (Berger 1982).

    The lower bound is the smallest of the uncorrected ones: all must be above 0, and no correction is needed. The
    upper bound is the smallest of Holm's: that one of several is below 0 must be shown against all of them.
    """
    plain = {name: interval(values) for name, values in comparisons.items()}
    corrected = holm(comparisons)
    least = min(plain, key=lambda name: plain[name].estimate)
    low = min(part.low for part in plain.values())
    return replace(plain[least], low=low, high=min(part.high for part in corrected.values()))


def none_above(comparisons: Mapping[str, Replicates]) -> Interval:
    """*Above 0 in none*: the largest difference. The upper bound is the largest of the uncorrected ones, the lower
    bound the largest of Holm's: that one of several is above 0 must be shown against all of them."""
    turned = all_above({name: -values for name, values in comparisons.items()})
    return replace(turned, estimate=-turned.estimate, low=-turned.high, high=-turned.low)
