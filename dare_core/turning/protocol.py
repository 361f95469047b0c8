"""The protocol of the chapters *Where the verdicts turn* and *Which logs pay*: `book/protocol.yml`, and its cells."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any

import yaml
from pydantic import Field

from dare_core.config import Strict
from dare_core.errors import InputError
from dare_core.files import project_root

Settings = dict[str, Any]
OWN = ("log", "steps", "part", "train")
"""Settings of a level beside those of a study."""


class Effect(Strict):
    """A claim as one number: above 0 where the paper is right."""

    title: str
    paper: float | None = None


class Block(Strict):
    """Cells that differ in some factors."""

    title: str
    log: str = ""
    seeds: int = Field(ge=1)
    models: list[str] = Field(min_length=1)
    settings: Settings = {}
    factors: dict[str, dict[str, Settings]] = Field(min_length=1)
    array: list[str] = []

    @property
    def combinations(self) -> list[dict[str, str]]:
        """The level of every factor, cell by cell."""
        levels = [list(of) for of in self.factors.values()]
        rows = [[of[int(digit)] for of, digit in zip(levels, row, strict=True)] for row in self.array]
        return [dict(zip(self.factors, row, strict=True)) for row in rows or product(*levels)]


class Prediction(Strict):
    """What was predicted before the first run, and can fail."""

    id: int
    says: str
    block: str
    claim: str
    factor: str = ""
    must: str


class Protocol(Strict):
    """The content of `book/protocol.yml`."""

    effects: dict[str, Effect]
    blocks: dict[str, Block]
    rules: dict[str, str]
    properties: dict[str, str]
    predictions: list[Prediction]


@dataclass(frozen=True)
class Cell:
    """A log at some settings, with the models that are trained on it."""

    block: str
    levels: Mapping[str, str]
    log: str
    models: tuple[str, ...]
    settings: Mapping[str, Any]
    seeds: int

    @property
    def name(self) -> str:
        """Its levels, which tell it from the others of its block."""
        return ", ".join(self.levels.values())


def merged(*parts: Mapping[str, Any]) -> Settings:
    """Settings joined, those of `world` and `train` key by key; later ones win.

    >>> merged({"world": {"groups": 7}}, {"world": {"related_share": 0.1}, "steps": 75})
    {'world': {'groups': 7, 'related_share': 0.1}, 'steps': 75}
    """
    found: Settings = {}
    for part in parts:
        for key, value in part.items():
            found[key] = {**found.get(key, {}), **value} if isinstance(value, dict) else value
    return found


@lru_cache(1)
def protocol() -> Protocol:
    """The protocol, checked."""
    return Protocol.model_validate(yaml.safe_load((project_root() / "book" / "protocol.yml").read_text("utf-8")))


def cells(block: str) -> list[Cell]:
    """The cells of a block. Raises InputError for an unknown one."""
    if block not in protocol().blocks:
        raise InputError(f"blocks: there is no block {block!r}: choose from {', '.join(protocol().blocks)}.")
    of = protocol().blocks[block]
    found = []
    for levels in of.combinations:
        settings = merged(of.settings, *(of.factors[factor][level] for factor, level in levels.items()))
        log = settings.pop("log", of.log)
        found.append(Cell(block, levels, log, tuple(of.models), settings, of.seeds))
    return found
