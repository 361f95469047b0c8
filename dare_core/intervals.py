"""Intervals: paired bootstrap over users and seeds, and what a table can detect."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy.stats import norm
from scipy.stats import t as student

from dare_core.metrics import Array, resampled_auc

Resamples = tuple[Array, Array]
"""A bootstrapped number: (S,) of each seed, and (S, B) under each draw of users."""
RESAMPLES = 1_000
LEVEL = 0.95
TWO = 1 - (1 - LEVEL) / 2
"""Level of each of two intervals that judge one claim (Bonferroni: Holm's first step for both)."""
DETECTABLE = 2.8
"""A difference of 2.8 standard errors is found with a power of 80 % at a level of 5 %."""


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval, its standard error and what it rests on."""

    estimate: float
    low: float
    high: float
    standard_error: float
    seeds: int

    @property
    def detectable(self) -> float:
        """The smallest difference that a comparison of this size finds with a power of 80 %."""
        return DETECTABLE * self.standard_error

    def __str__(self) -> str:
        return f"{self.estimate:.4f} [{self.low:.4f}, {self.high:.4f}]"


def from_resamples(estimate: float, resampled: Array, seeds: int, level: float = LEVEL) -> Interval:
    """Percentile interval of bootstrap values (B,); values that are not finite are left out."""
    values = resampled[np.isfinite(resampled)]
    if not len(values) or not np.isfinite(estimate):
        return Interval(float("nan"), float("nan"), float("nan"), float("nan"), seeds)
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(estimate), float(low), float(high), float(values.std(ddof=1)), seeds)


@dataclass(frozen=True)
class Draws:
    """The bootstrap's draws, the same for every model of a comparison: that is what pairs them."""

    users: Array  # (B, U) how often each user was drawn
    seeds: Array  # (B, S) how often each seed was drawn

    @classmethod
    def make(cls, users: int, seeds: int, resamples: int = RESAMPLES, seed: int = 0) -> "Draws":
        """Draw users, and seeds, with replacement."""
        generator = np.random.default_rng(seed)
        return cls(
            generator.multinomial(users, np.full(users, 1 / users), resamples).astype(np.float64),
            generator.multinomial(seeds, np.full(seeds, 1 / seeds), resamples).astype(np.float64),
        )

    def mean_over_seeds(self, values: Array) -> Array:
        """(B,) mean over the drawn seeds of values (S, B)."""
        return (self.seeds.T * values).sum(0) / self.seeds.shape[1]


@dataclass(frozen=True)
class Scored:
    """Test scores of one model and seed: flat arrays, users numbered from 0."""

    labels: np.ndarray
    scores: np.ndarray
    users: np.ndarray

    def where(self, keep: np.ndarray) -> "Scored":
        """The samples kept."""
        return Scored(self.labels[keep], self.scores[keep], self.users[keep])


def auc_resamples(runs: Sequence[Scored], draws: Draws, block: int = 100) -> Resamples:
    """AUC of each seed (S,) and under each draw of users (S, B), in blocks that bound memory."""
    plain = np.empty(len(runs))
    resampled = np.empty((len(runs), len(draws.users)))
    for s, run in enumerate(runs):
        order = np.argsort(run.scores, kind="stable")  # sorted once for all blocks
        labels, scores, users = run.labels[order], run.scores[order], run.users[order]
        plain[s] = resampled_auc(run.labels, run.scores, np.ones((1, len(run.labels))))[0]
        for at in range(0, len(draws.users), block):
            weights = draws.users[at : at + block][:, users]
            resampled[s, at : at + block] = resampled_auc(labels, scores, weights)
    return plain, resampled


def mean_resamples(values: Sequence[Array], draws: Draws) -> Resamples:
    """Means over test candidates of values (H, C), a seed each; NaN is left out."""
    stacked = np.stack(values)
    known = np.isfinite(stacked)
    total, count = np.where(known, stacked, 0.0).sum(2), known.sum(2).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return total.sum(1) / count.sum(1), (total @ draws.users.T) / (count @ draws.users.T)


def mean_interval(resamples: Resamples, draws: Draws, level: float = LEVEL) -> Interval:
    """Mean over seeds, with its interval over users and seeds."""
    plain, values = resamples
    return from_resamples(float(plain.mean()), draws.mean_over_seeds(values), len(plain), level)


def ratio_interval(first: Resamples, second: Resamples, draws: Draws, level: float = LEVEL) -> Interval:
    """Mean of first over seeds, over the mean of second, paired by user and seed."""
    values = draws.mean_over_seeds(first[1]) / draws.mean_over_seeds(second[1])
    return from_resamples(float(first[0].mean() / second[0].mean()), values, len(first[0]), level)


def difference_interval(first: Resamples, second: Resamples, draws: Draws, level: float = LEVEL) -> Interval:
    """Mean of first - second over seeds, paired by user and by seed."""
    plain = first[0] - second[0]
    return from_resamples(float(plain.mean()), draws.mean_over_seeds(first[1] - second[1]), len(plain), level)


def best_of(many: Sequence[Resamples], draws: Draws) -> Resamples:
    """The best (highest mean over seeds) of several scores, chosen anew under every draw.

    Choosing the best on the data that judge it favours it; choosing anew within each draw carries that into
    the interval. Returns (S,) and (S, B) like its arguments.
    """
    plain = max((values for values, _ in many), key=lambda values: float(values.mean()))
    means = np.stack([draws.mean_over_seeds(resampled) for _, resampled in many])
    chosen = means.argmax(0)
    stacked = np.stack([resampled for _, resampled in many])  # (M, S, B)
    return plain, stacked[chosen, :, np.arange(stacked.shape[2])].T


def step_down(intervals: Mapping[str, Callable[[float], Interval]]) -> dict[str, Interval]:
    """Intervals of several quantities with null value 0 that make one claim, by Holm's step-down correction.

    Each is given as a function of its level. The quantity that lies most standard errors from 0 is judged at
    level 1 - 0.05 / m, the next at 1 - 0.05 / (m - 1), and so on; from the first whose interval contains 0,
    the level stays.
    """
    plain = {name: make(LEVEL) for name, make in intervals.items()}
    order = sorted(plain, key=lambda name: -abs(plain[name].estimate) / max(plain[name].standard_error, 1e-12))
    found: dict[str, Interval] = {}
    left = len(order)
    for name in order:
        found[name] = intervals[name](1 - (1 - LEVEL) / left)
        if not found[name].low <= 0 <= found[name].high:
            left -= 1
    return {name: found[name] for name in intervals}  # as given: near ties would come in any order


def holm(pairs: Mapping[str, tuple[Resamples, Resamples]], draws: Draws) -> dict[str, Interval]:
    """Intervals of several differences that make one claim, with Holm's correction (`step_down`)."""
    return step_down({name: partial(difference_interval, *pair, draws) for name, pair in pairs.items()})


def jackknife(
    units: int,
    statistic: Callable[[Array], float],
    seeds: int = 1,
    level: float = LEVEL,
    groups: int = 50,
    seed: int = 0,
) -> Interval:
    """Interval of a statistic of weights (units,) by leaving out one random group of units at a time.

    For statistics that are biased upwards in small samples, as mutual information is: a bootstrap draws
    units twice, adds its own share of that bias, and its interval can miss the estimate altogether.
    """
    groups = min(groups, units)
    group = np.random.default_rng(seed).permutation(units) % groups
    values = np.array([statistic((group != g).astype(np.float64)) for g in range(groups)])
    estimate = statistic(np.ones(units))
    error = float(np.sqrt((groups - 1) / groups * ((values - values.mean()) ** 2).sum()))
    margin = float(norm.ppf((1 + level) / 2)) * error
    return Interval(estimate, estimate - margin, estimate + margin, error, seeds)


def two_way_jackknife(estimate: float, without_users: Array, without_seeds: Array, level: float = LEVEL) -> Interval:
    """Interval of a mean over seeds from its values without each group of users (G,) and without each seed (S,).

    The variances over users and over seeds add up; Student's quantile has Satterthwaite's degrees of freedom,
    because three seeds say little about their own spread. What the seed moves in a user's samples counts in
    both parts, so the interval is rather too wide than too narrow. With one seed it is over users alone.
    """
    variances, freedom = [], []
    for values in (without_users, without_seeds):
        n = len(values)
        if n > 1:
            variances.append((n - 1) / n * float(((values - values.mean()) ** 2).sum()))
            freedom.append(n - 1)
    variance = sum(variances)
    parts = sum(v**2 / df for v, df in zip(variances, freedom, strict=True))
    margin = float(student.ppf((1 + level) / 2, variance**2 / parts)) * variance**0.5 if parts > 0 else 0.0
    return Interval(estimate, estimate - margin, estimate + margin, variance**0.5, len(without_seeds))


def jackknife_over_seeds(
    units: int, statistic: Callable[[Array], Array], level: float = LEVEL, groups: int = 50, seed: int = 0
) -> Interval:
    """`two_way_jackknife` of a statistic of weights (units,) that gives one value a seed (S,): their mean."""
    groups = min(groups, units)
    group = np.random.default_rng(seed).permutation(units) % groups
    without_users = np.array([np.mean(statistic((group != g).astype(np.float64))) for g in range(groups)])
    by_seed = np.asarray(statistic(np.ones(units)), np.float64)
    without_seeds = (by_seed.sum() - by_seed) / max(len(by_seed) - 1, 1)
    return two_way_jackknife(float(by_seed.mean()), without_users, without_seeds, level)
