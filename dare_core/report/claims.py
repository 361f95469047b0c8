"""The ledger: every claim of the paper, our numbers, and verdicts that a rule computes.

The claims are in `book/claims.yml`; chapters write what they measured to one JSON file each, and the
ledger is both joined.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import yaml
from pydantic import Field, ValidationError

from dare_core.config import Strict, explain
from dare_core.errors import InputError
from dare_core.files import project_root, store_root, write_json

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


class Quantity(Strict):
    """One number that a claim is about."""

    quantity: str
    meaning: str
    primary: bool = Field(False, description="the paper's own figure or table: this one is the claim's verdict")
    reason: str = Field("", description="why it is the primary one")
    paper: float | None  # null where the paper shows a picture only
    null: float  # the value at which there is no effect
    direction: Literal["greater", "less"]
    scale: Literal["linear", "log"] = "linear"  # log: a ratio
    tolerance: float = Field(0.0, ge=0, description="the claim holds where the interval is on its side of this much")
    margin: float | None = Field(None, gt=0, description="effects within it count as none; else half the paper's")
    judged: bool = True  # false: shown, without a verdict
    built_in: bool = Field(False, description="built into generated worlds, and not judged there")
    unit: str = ""
    also: list[str] = Field(default_factory=list, description="other settings of the paper, quoted")

    def effect(self, value: float) -> float:
        """How far a value is from the null value, in the claimed direction; of ratios on the log scale."""
        if self.scale == "log":
            value, null = (math.log(v) if v > 0 else -math.inf for v in (value, self.null))
        else:
            null = self.null
        return value - null if self.direction == "greater" else null - value

    @property
    def half(self) -> float | None:
        """Half the paper's effect, where it gives one on the claimed side."""
        effect = None if self.paper is None else self.effect(self.paper)
        return effect / 2 if effect and effect > 0 else None


class Claim(Strict):
    """A claim of the paper."""

    id: str
    claim: str
    source: str
    chapter: str
    untestable: str | None = None
    needs_competence: bool = Field(False, description="judged only where the models have learned")
    quantities: list[Quantity]

    def of(self, name: str) -> Quantity:
        """A quantity by name."""
        return next(q for q in self.quantities if q.quantity == name)


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


def load_claims(path: Path | None = None) -> dict[str, Claim]:
    """Every claim, by id, in the order of the file."""
    path = path or project_root() / "book" / "claims.yml"
    try:
        claims = [Claim.model_validate(entry) for entry in yaml.safe_load(path.read_text("utf-8"))]
    except OSError as error:
        raise InputError(f"The claims cannot be read from {path} ({error.strerror}).") from error
    except ValidationError as error:
        raise explain(error, path.name) from error
    return {claim.id: claim for claim in claims}


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
    if values and (reason := blocked or basis.gate(claim, quantity)):
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


def results_folder(profile: str) -> Path:
    """Where the chapters of a profile's book write their metrics."""
    return store_root() / "book" / profile / "results"


def stored_folder() -> Path:
    """Where results that are stored with the project lie."""
    return project_root() / "book" / "stored"


def chapter_results(results: Path) -> dict[str, dict[str, Any]]:
    """The metrics files of a folder, by chapter."""
    found = {}
    for path in sorted(results.glob("*.json")):
        try:
            found[path.stem] = json.loads(path.read_text("utf-8"))
        except ValueError as error:
            raise InputError(f"{path} is not valid JSON ({error}): run its chapter again.") from error
    return {name: content for name, content in found.items() if isinstance(content, dict) and "rows" in content}


def measured_rows(results: Path) -> list[LedgerRow]:
    """The ledger rows of the metrics files of a folder."""
    rows = []
    for name, content in chapter_results(results).items():
        try:
            rows += [LedgerRow.model_validate(entry) for entry in content["rows"]]
        except ValidationError as error:
            raise explain(error, f"{results / name}.json") from error
    return rows


def joined(stored: Sequence[LedgerRow], built: Sequence[LedgerRow]) -> list[LedgerRow]:
    """Stored rows and those of a build: one row where quantity, log and embedding size agree, with the build's value
    in `rebuilt`."""

    def key(line: LedgerRow) -> tuple[str | int | None, ...]:
        return line.claim, line.quantity, line.fingerprint or line.log, line.embedding_size

    again = {key(line): line for line in built}
    rows = []
    for line in stored:
        same = again.pop(key(line), None)
        rows.append(line if same is None else line.model_copy(update={"rebuilt": same.ours}))
    return rows + list(again.values())


def stored_folders() -> list[Path]:
    """Folders of stored metrics files: of the full profile, and of each further log."""
    return [stored_folder(), *sorted(stored_folder().glob("further/*"))]


def ledger(results: Path, profile: str) -> list[LedgerRow]:
    """Every claim with what was measured for it; claims without a measurement say so.

    Results that are stored with the project (`book/stored`) and those of the profile are joined (`joined`).
    """
    rows = joined([line for folder in stored_folders() for line in measured_rows(folder)], measured_rows(results))
    lines: list[LedgerRow] = []
    for claim in load_claims().values():
        for quantity in claim.quantities:
            own = [r for r in rows if (r.claim, r.quantity) == (claim.id, quantity.quantity)]
            nothing = LedgerRow(
                claim=claim.id,
                quantity=quantity.quantity,
                primary=quantity.primary,
                profile=profile,
                paper=quantity.paper,
                verdict="cannot be tested here" if claim.untestable else "not studied yet",
                note=claim.untestable or "",
            )
            lines += sorted(own, key=lambda r: r.training_samples or 0) or [nothing]
    return lines


def write_ledger(results: Path, profile: str) -> Path:
    """Write the ledger beside the chapters' metrics; returns its path."""
    path = results / "ledger.json"
    write_json(path, [r.model_dump() for r in ledger(results, profile)])
    return path


def number(value: float | None) -> str:
    """Four decimals below 1 (more where two digits would not show), three below 10, then one; a dash for none."""
    if value is None or not math.isfinite(value):
        return "–"
    digits = 4 if abs(value) < 1 else 3 if abs(value) < 10 else 1
    if 0 < abs(value) < 1e-3:
        digits = min(1 - math.floor(math.log10(abs(value))), 12)
    return f"{value:,.{digits}f}"


def verdict_line(line: LedgerRow) -> str:
    """One line of text without digits that change with the machine: what notebooks print and tests compare."""
    marks = "*" if line.primary else ""
    return f"{line.claim}{marks} {line.quantity} on {line.log or 'no log'}: {line.verdict}"


def ledger_table(rows: Sequence[LedgerRow]) -> list[dict[str, str]]:
    """The ledger as it is printed: claim, paper, ours with interval, log, verdict."""
    return [
        {
            "claim": r.claim + ("*" if r.primary else ""),
            "quantity": r.quantity,
            "log": r.log or "–",
            "samples": "–" if r.training_samples is None else f"{r.training_samples:,}",
            "paper": number(r.paper),
            "ours": number(r.ours),
            "interval": "" if r.low is None else f"[{number(r.low)}, {number(r.high)}]",
            "seeds": "–" if r.seeds is None else str(r.seeds),
            "competence": "–" if r.competence is None else f"{r.competence:.2f}",
            "verdict": r.verdict,
            "note": r.note,
        }
        for r in rows
    ]
