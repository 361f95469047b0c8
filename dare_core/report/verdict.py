"""From an interval to a verdict, by a rule that was fixed before any result was read; and the row of the ledger."""

import math
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, Protocol

from dare_core.config import Strict
from dare_core.report.claims import Claim, Quantity

if TYPE_CHECKING:  # the ledger is read without SciPy, with which intervals are computed
    from dare_core.evaluation.intervals import Interval

Verdict = Literal[
    "holds",
    "holds, smaller",
    "contradicted",
    "absent",
    "undecided",
    "cannot be tested here",
    "not studied yet",
]
Direction = Literal["claimed", "other", "neither"]
Size = Literal["at least half", "less than half", "undecided"]
FEWEST_SEEDS, FEWEST_WORLDS = 2, 3
NOT_COMPUTED = "not computed here: "
"""Begins the note of a quantity that was not computed, with what it needs: it is *not studied yet*."""


class LedgerRow(Strict):
    """A line of the ledger: a quantity on a log at an embedding size. Numbers are null where there are none."""

    claim: str
    quantity: str
    primary: bool = False
    log: str | None = None
    kind: str | None = None  # generated log, published log, own log, published text, own text
    training_samples: int | None = None
    profile: str | None = None
    paper: float | None = None
    ours: float | None = None
    low: float | None = None
    high: float | None = None
    seeds: int | None = None  # trainings per model
    worlds: int | None = None  # null on logs that were not generated
    direction: Direction | None = None
    size: Size | None = None  # of the effect, against half the paper's
    competence: float | None = None
    verdict: Verdict
    rebuilt: float | None = None  # what this build measured, where `ours` is a stored result
    note: str = ""
    detectable: float | None = None
    embedding_size: int | None = None
    retrieved: int | None = None  # behaviours that the search keeps, K
    batch_size: int | None = None  # samples per step
    steps_per_epoch: int | None = None
    best_rule: str | None = None  # without learning, chosen on validation samples
    device: str | None = None
    threads: int | None = None  # per training
    code: str | None = None  # hash of the code that trained
    date: str | None = None  # on which it was judged
    fingerprint: str | None = None  # of the log's content; of a generated log: of its settings but for the seed


@dataclass(frozen=True)
class Judgement:
    """What the rule says: on which side of the null value the interval is, how large the effect is, the verdict."""

    direction: Direction | None
    size: Size | None
    verdict: Verdict
    note: str = ""


def judge(quantity: Quantity, measured: "Interval") -> Judgement:
    """The verdict, by the rule that was fixed before any result was read (chapter *Method*).

    Direction: the interval excludes the null value on the claimed side, on the other, or neither. Size, where the
    paper gives a number: whether the effect is at least half of it. *holds*: the claimed side, and an estimate of at
    least half the paper's effect; *holds, smaller*: the claimed side with less; *contradicted*: the other side;
    *absent*: neither, and within half the paper's effect (or the claim's margin) on both sides; *undecided*: else.
    """
    if not all(math.isfinite(value) for value in (measured.estimate, measured.low, measured.high)):
        return Judgement(None, None, "cannot be tested here")
    estimate = quantity.effect(measured.estimate)
    low, high = sorted((quantity.effect(measured.low), quantity.effect(measured.high)))
    half = quantity.half
    direction: Direction = "other" if high < 0 else "claimed" if low > -quantity.tolerance else "neither"
    size: Size | None = None
    if half is not None:
        size = "at least half" if low >= half else "less than half" if high < half else "undecided"
    power = measured.power(half) if half is not None else 1.0
    if direction == "other":
        return Judgement(direction, size, "contradicted")
    if direction == "claimed":
        notes = []
        if half is not None and estimate > 4 * half:
            notes.append("larger: more than twice the paper's effect")
        if power < 0.5:
            notes.append("estimate probably inflated")
        smaller = half is not None and estimate < half
        return Judgement(direction, size, "holds, smaller" if smaller else "holds", "; ".join(notes))
    bound = quantity.margin or half
    if bound is not None and -bound < low and high < bound:
        return Judgement(direction, size, "absent")
    note = f"this log finds half the paper's effect in {power:.0%} of cases" if power < 0.5 else ""
    return Judgement(direction, size, "undecided", note)


@dataclass(frozen=True)
class Basis:
    """Where a number comes from: the log, how much was trained, and whether the models have learned."""

    log: str | None
    kind: str | None
    fingerprint: str | None = None
    embedding_size: int | None = None
    training_samples: int | None = None
    seeds: int | None = None
    worlds: int | None = None
    competence: float | None = None
    retrieved: int | None = None
    batch_size: int | None = None
    steps_per_epoch: int | None = None
    best_rule: str | None = None
    device: str | None = None
    threads: int | None = None
    code: str | None = None
    not_learned: str = ""  # why nothing is judged that needs models which have learned

    def basis(self, learned: bool) -> "Basis":
        """Itself, as what a number is judged on (`HasBasis`)."""
        return self

    @property
    def columns(self) -> dict[str, Any]:
        """What a ledger row says of it."""
        return {name: value for name, value in asdict(self).items() if name in LedgerRow.model_fields}

    def gate(self, claim: Claim, quantity: Quantity) -> str:
        """Why the quantity cannot be judged here; empty where it can."""
        if quantity.built_in and self.worlds is not None:
            return "built into the generated world"
        if not quantity.judged:
            return "shown, not judged"
        if self.worlds is not None and self.worlds < FEWEST_WORLDS:
            return f"{self.worlds} of at least {FEWEST_WORLDS} worlds"
        if self.worlds is None and self.seeds is not None and self.seeds < FEWEST_SEEDS:
            return f"{self.seeds} of at least {FEWEST_SEEDS} seeds"
        return self.not_learned if claim.needs_competence else ""


class HasBasis(Protocol):
    """What numbers are judged on: a log of a study, or a `Basis` itself."""

    def basis(self, learned: bool) -> Basis:
        """What a number rests on; `learned`: with the models' competence."""


def row(
    claim: Claim,
    name: str,
    measured: "Interval | None",
    basis: Basis,
    profile: str,
    note: str = "",
    own_best: "Interval | None" = None,
    blocked: str = "",
) -> LedgerRow:
    """A ledger row with its verdict; without an interval, `note` says why it cannot be tested here, or
    (`NOT_COMPUTED`) what it would need.

    `own_best`: the same quantity with each model at its own best setting; where its direction is another one, the
    verdict is *undecided*. `blocked`: why the number is shown and not judged, beyond what `basis` says.
    """
    quantity = claim.of(name)
    values = _numbers(measured)
    found = judge(quantity, measured) if measured is not None else Judgement(None, None, "cannot be tested here")
    verdict, notes = found.verdict, [found.note, note]
    if measured is None and note.startswith(NOT_COMPUTED):
        verdict = "not studied yet"
    if values and (reason := basis.gate(claim, quantity) or blocked):
        verdict, notes = "cannot be tested here", [reason, note]
    elif own_best is not None and (other := judge(quantity, own_best).direction) != found.direction:
        verdict = "undecided"
        notes.insert(0, f"with each model at its own best setting ({own_best}) the direction is {other}")
    return LedgerRow(
        claim=claim.id,
        quantity=name,
        primary=quantity.primary,
        profile=profile,
        paper=quantity.paper,
        direction=found.direction if quantity.judged else None,
        size=found.size if quantity.judged else None,
        verdict=verdict,
        note="; ".join(part for part in notes if part),
        date=datetime.now(UTC).date().isoformat(),
        **basis.columns,
        **values,
    )


def _numbers(measured: "Interval | None") -> dict[str, float | None]:
    """Estimate, bounds and detectable difference, of which what is not finite is null; nothing where there is no
    estimate."""
    if measured is None or not math.isfinite(measured.estimate):
        return {}
    values = {"ours": measured.estimate, "low": measured.low, "high": measured.high, "detectable": measured.detectable}
    return {name: value if math.isfinite(value) else None for name, value in values.items()}
