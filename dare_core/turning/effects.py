"""Effects by cell, what a factor does to them, and what became of the predictions (`rules` of the protocol)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dare_core.evaluation.intervals import UNKNOWN, Interval, holm, interval
from dare_core.evaluation.metrics import Array
from dare_core.studies.experiment import CLAIMED, FEWEST_STEPS, LEARNED, REFERENCE
from dare_core.studies.scores import columns
from dare_core.turning.lead_rule import LeadRule, Properties, fit
from dare_core.turning.points import Point
from dare_core.turning.protocol import Cell, Prediction, cells, protocol

FEWEST_WORLDS = 3
OPPOSITE_PAIRS = 6
"""Of eight pairs of cells whose means must differ in sign where a factor turns a claim."""
DIRECTIONS = ("above 0", "below 0", "undecided")
Rows = list[dict[str, Any]]


def of_cell(points: Sequence[Point], cell: Cell) -> list[Point]:
    """The points of a cell, by seed."""
    own = [point for point in points if (point["block"], point["cell"]) == (cell.block, cell.name)]
    return sorted(own, key=lambda point: point["seed"])


def effect(points: Sequence[Point], claim: str) -> Interval:
    """The effect of a cell's points with its interval: over worlds, or as it was measured on a log of several seeds."""
    values = [point[claim] for point in points if point.get(claim) is not None]
    if not values or len(values) < len(points):
        return UNKNOWN
    if f"{claim}, low" not in points[0]:
        return interval(np.array(values)[:, None])
    low, high = points[0][f"{claim}, low"], points[0][f"{claim}, high"]
    return Interval(values[0], low, high, (high - low) / 4, float("nan"), points[0]["seeds"])


def competence(points: Sequence[Point]) -> float:
    """(AUC - 1/2) of the better of DARE and TWIN, chosen on validation, over that of the best rule: means."""
    if f"AUC, {CLAIMED}" not in points[0]:
        return float("nan")

    def mean(name: str) -> float:
        return float(np.mean([point[name] for point in points]))

    better = max((CLAIMED, REFERENCE), key=lambda name: mean(f"validation AUC, {name}"))
    return (mean(f"AUC, {better}") - 0.5) / (mean("AUC of the rule") - 0.5)


def not_judged(points: Sequence[Point]) -> str:
    """Why a cell has no verdict; empty where it has one."""
    steps = round(float(np.mean([point["steps"] for point in points])))
    if steps < FEWEST_STEPS:
        return f"{steps} steps per epoch"
    if "O1, low" not in points[0] and len(points) < FEWEST_WORLDS:
        return f"{len(points)} of {FEWEST_WORLDS} worlds"
    value = competence(points)
    return f"competence {value:.2f}" if value < LEARNED else ""


def direction(found: Interval) -> str:
    """On which side of 0 an interval lies."""
    return DIRECTIONS[0 if found.low > 0 else 1 if found.high < 0 else 2]


def cell_rows(block: str, points: Sequence[Point]) -> Rows:
    """Every measured cell of a block: its levels, size, competence and effects, with directions where it is judged."""
    rows = []
    for cell in cells(block):
        own = of_cell(points, cell)
        if not own:
            continue
        row: dict[str, Any] = {"block": block, **cell.levels, "points": len(own)}
        row |= {name: round(float(np.mean([point[name] for point in own]))) for name in ("training samples", "steps")}
        row |= {"competence": competence(own), "not judged": not_judged(own)}
        for claim in claims_of(points, block):
            found = effect(own, claim)
            row |= columns(claim, found) | {f"{claim} is": "" if row["not judged"] else direction(found)}
        rows.append(row)
    return rows


def claims_of(points: Sequence[Point], block: str) -> list[str]:
    """The claims that a block's points have an effect of."""
    known = [*protocol().effects, "equal width", "G1", "G2"]
    own = [point for point in points if point["block"] == block]
    return [claim for claim in known if any(point.get(claim) is not None for point in own)]


@dataclass(frozen=True)
class Contrast:
    """What the step from a factor's first to its second level does to a claim, mean over the pairs of cells."""

    factor: str
    change: Interval  # over worlds, by Holm's correction over the factors
    opposite: int  # pairs of cells whose means differ in sign
    pairs: int

    @property
    def decision(self) -> str:
        """`turns`, `moves`, or neither."""
        if self.change.low <= 0 <= self.change.high or not np.isfinite(self.change.low):
            return "neither"
        return "turns" if self.opposite >= OPPOSITE_PAIRS * self.pairs / 8 else "moves"


def effects_by_world(points: Sequence[Point], block: str, claim: str) -> Array | None:
    """(W, 2, 2, ...) effects of a block of factors with two levels, for the worlds that all cells have; None where
    there are fewer than two."""
    of = protocol().blocks[block].factors
    shape = tuple(len(levels) for levels in of.values())
    values = {(point["cell"], point["seed"]): point.get(claim) for point in points if point["block"] == block}
    names = [cell.name for cell in cells(block)]
    seeds = sorted({seed for _, seed in values})
    whole = [s for s in seeds if all(values.get((name, s)) is not None for name in names)]
    if len(whole) < 2:
        return None
    return np.array([[values[name, s] for name in names] for s in whole], float).reshape(len(whole), *shape)


def contrasts(points: Sequence[Point], block: str, claim: str) -> list[Contrast]:
    """The contrast of every factor of a block; none where fewer than two worlds are complete."""
    values = effects_by_world(points, block, claim)
    if values is None:
        return []
    names, changes, opposite, pairs = list(protocol().blocks[block].factors), {}, {}, 0
    means = values.mean(0)
    for axis, name in enumerate(names):
        difference = np.diff(values, axis=axis + 1)
        changes[name] = difference.reshape(len(values), -1).mean(1)[:, None]
        first, second = (np.take(means, level, axis).ravel() for level in (0, 1))
        opposite[name], pairs = int((np.sign(first) != np.sign(second)).sum()), len(first)
    return [Contrast(name, found, opposite[name], pairs) for name, found in holm(changes).items()]


def mean_by(points: Sequence[Point], block: str, claim: str, factors: Sequence[str]) -> Rows:
    """The mean effect of a block's cells at every combination of some factors' levels, over the worlds that all of them
    have, with its interval over these. Combinations without such a world are left out."""
    alike: dict[tuple[str, ...], list[dict[int, float]]] = {}
    for cell in cells(block):
        values = {p["seed"]: p[claim] for p in of_cell(points, cell) if p.get(claim) is not None}
        alike.setdefault(tuple(cell.levels[factor] for factor in factors), []).append(values)
    rows = []
    for levels, found in alike.items():
        worlds = set.intersection(*map(set, found))
        if worlds:
            means = [np.mean([values[world] for values in found]) for world in sorted(worlds)]
            row: dict[str, Any] = dict(zip(factors, levels, strict=True)) | {"worlds": len(worlds)}
            rows.append(row | columns("mean", interval(np.array(means)[:, None])))
    return rows


def lead_rule(points: Sequence[Point], outcome: str = "O1") -> LeadRule | None:
    """The rule of the lead from the cells of block W; None where they are not all measured."""
    own = [of_cell(points, cell) for cell in cells("W")]
    if not all(own):
        return None
    return fit(list(map(properties, own)), np.array([effect(each, outcome).estimate for each in own]))


def properties(points: Sequence[Point]) -> Properties:
    """The properties of a cell's log, means over its points."""
    return {name: float(np.mean([point[name] for point in points])) for name in protocol().properties}


def predicted(points: Sequence[Point], outcome: str = "O1") -> Rows:
    """The real logs of block R: predicted lead and what was measured."""
    rule, rows = lead_rule(points, outcome), []
    for cell in cells("R"):
        own = of_cell(points, cell)
        if rule is None or not own:
            continue
        guess, found = rule.predict(properties(own)), effect(own, outcome)
        rows.append(
            {"log": cell.log, **columns("predicted", guess), **columns("measured", found)}
            | {"in the interval": "yes" if guess.low <= found.estimate <= guess.high else "no"}
            | {"outside the worlds": ", ".join(rule.outside(properties(own))) or "–"}
        )
    return rows


def lead_outcome(points: Sequence[Point]) -> tuple[str, str]:
    """What became of the prediction of real logs, and why."""
    rule, rows = lead_rule(points), predicted(points)
    if rule is None:
        return "open", "not all worlds are measured"
    if not rule.found:
        return "failed", f"no rule was found: its error is {rule.gain:.2f} times that of the mean"
    if len(rows) < len(cells("R")):
        return "open", f"{len(rows)} of {len(cells('R'))} logs are measured"
    error = float(np.mean([abs(row["predicted"] - row["measured"]) for row in rows]))
    always = float(np.mean([abs(row["measured"]) for row in rows]))
    inside = sum(row["in the interval"] == "yes" for row in rows)
    says = f"mean error {error:.4f} beside {always:.4f} of always 0; {inside} of {len(rows)} in the interval"
    return "held" if error < always and inside >= len(rows) - 1 else "failed", says


def outcome(prediction: Prediction, points: Sequence[Point]) -> tuple[str, str]:
    """What became of a prediction (held, failed, undecided or open), and by which numbers."""
    if prediction.must == "predicts":
        return lead_outcome(points)
    if prediction.must.startswith("below "):
        cell = next(c for c in cells(prediction.block) if c.name == "published, 2,048")
        own = of_cell(points, cell)
        if not own:
            return "open", "not computed yet"
        found, limit = effect(own, prediction.claim), float(prediction.must.removeprefix("below "))
        low, high = math.exp(found.low), math.exp(found.high)
        word = "held" if high < limit else "failed" if low > limit else "undecided"
        return word, f"{math.exp(found.estimate):.2f} [{low:.2f}, {high:.2f}]"
    known = {contrast.factor: contrast for contrast in contrasts(points, prediction.block, prediction.claim)}
    if prediction.factor not in known:
        return "open", "not computed yet"
    of = known[prediction.factor]
    says = f"{of.change}, {of.decision}, {of.opposite} of {of.pairs} pairs of opposite sign"
    if prediction.must == "below":
        return ("held" if of.change.high < 0 else "failed" if of.change.low > 0 else "undecided"), says
    return ("held" if (of.decision == "turns") == (prediction.must == "turns") else "failed"), says


def prediction_rows(points: Sequence[Point]) -> Rows:
    """Every prediction with what became of it."""
    rows = []
    for prediction in protocol().predictions:
        word, why = outcome(prediction, points)
        rows.append({"prediction": prediction.says, "outcome": word, "by": why})
    return rows
