"""The claims of the paper that are put to the test: `book/claims.yml`."""

import math
from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field, ValidationError

from dare_core.config import Strict, explain
from dare_core.errors import InputError
from dare_core.files import project_root


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
