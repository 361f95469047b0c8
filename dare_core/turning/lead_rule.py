"""A rule of the lead of two tables: a regression on properties that a log has before any training, fitted on generated
worlds, which then predicts real logs (`rules.lead` of the protocol)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

from dare_core.evaluation.intervals import LEVEL, Interval
from dare_core.evaluation.metrics import Array

MOST = 3
"""Properties of a rule at most."""
BETTER = 0.9
"""Squared error, over that of the mean, up to which there is a rule."""
Properties = Mapping[str, float]


@dataclass(frozen=True)
class LeadRule:
    """A regression on some properties. `gain`: squared error of the whole procedure on cells left out in turn, over
    that of the mean of the others."""

    names: tuple[str, ...]
    coefficients: Array  # (1 + n,) the constant first
    inverse: Array  # (1 + n, 1 + n) of X'X
    variance: float  # of the residuals
    freedom: int
    gain: float
    least: Mapping[str, float]  # of each property among the worlds
    greatest: Mapping[str, float]

    @property
    def found(self) -> bool:
        """Whether it is better than always giving the mean."""
        return self.gain <= BETTER

    def predict(self, log: Properties) -> Interval:
        """The lead of another log, with the interval of a single new observation."""
        row = np.array([1.0, *(log[name] for name in self.names)])
        error = float(np.sqrt(self.variance * (1 + row @ self.inverse @ row)))
        margin = float(student.ppf((1 + LEVEL) / 2, self.freedom)) * error
        estimate = float(row @ self.coefficients)
        return Interval(estimate, estimate - margin, estimate + margin, error, self.freedom, 1)

    def outside(self, log: Properties) -> list[str]:
        """Its properties in which a log lies outside the worlds."""
        return [name for name in self.names if not self.least[name] <= log[name] <= self.greatest[name]]


def with_constant(x: Array) -> Array:
    """A column of ones before the columns of x."""
    return np.column_stack([np.ones(len(x)), x])


def _error(x: Array, y: Array) -> float:
    """Mean squared error of a regression on rows left out in turn, from the leverages."""
    used = with_constant(x)
    hat = used @ np.linalg.pinv(used)
    return float(np.mean(((y - hat @ y) / np.maximum(1 - np.diag(hat), 1e-9)) ** 2))


def chosen(x: Array, y: Array) -> list[int]:
    """Columns of x (n, properties), chosen forwards while the error on rows left out in turn falls; maybe none."""
    found: list[int] = []
    least = _error(x[:, []], y)
    while len(found) < MOST:
        errors = {c: _error(x[:, [*found, c]], y) for c in range(x.shape[1]) if c not in found}
        best = min(errors, key=lambda column: errors[column])
        if errors[best] >= least:
            break
        found, least = [*found, best], errors[best]
    return found


def fit(worlds: Sequence[Properties], leads: Array) -> LeadRule:
    """The rule of some kinds of worlds, from the properties and the lead of each."""
    names = list(worlds[0])
    x = np.array([[world[name] for name in names] for world in worlds])
    own, of_mean = [], []
    for out in range(len(leads)):
        kept = np.arange(len(leads)) != out
        columns = chosen(x[kept], leads[kept])
        coefficients = np.linalg.pinv(with_constant(x[kept][:, columns])) @ leads[kept]
        own.append((leads[out] - (with_constant(x[[out]][:, columns]) @ coefficients)[0]) ** 2)
        of_mean.append((leads[out] - leads[kept].mean()) ** 2)
    columns = chosen(x, leads)
    used = with_constant(x[:, columns])
    inverse = np.asarray(np.linalg.inv(used.T @ used), np.float64)
    coefficients = inverse @ used.T @ leads
    freedom = len(leads) - used.shape[1]
    variance = float(((leads - used @ coefficients) ** 2).sum() / freedom)
    kept_names = tuple(names[column] for column in columns)
    bounds = {"least": x.min(0), "greatest": x.max(0)}
    ranges = {what: dict(zip(names, map(float, values), strict=True)) for what, values in bounds.items()}
    return LeadRule(kept_names, coefficients, inverse, variance, freedom, float(sum(own) / sum(of_mean)), **ranges)
