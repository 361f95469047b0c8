"""The grid of a sweep: a YAML file, checked before PyTorch is imported."""

from difflib import get_close_matches
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import ConfigDict, Field, ValidationError, field_validator

from dare_core.config import ModelConfig, SampleConfig, Strict, TrainingConfig, explain
from dare_core.errors import InputError
from dare_core.studies.settings import StudyConfig

VARIED = sorted({*ModelConfig.model_fields, *SampleConfig.model_fields, *TrainingConfig.model_fields} - {"name"})
"""What `vary` may change: fields of the model, the samples and the training."""
ELSEWHERE = ("logs", "seeds", "profile", "results")
"""Fields of a study's settings that a sweep says in its own words, or does not have."""
Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]


class Block(Strict):
    """A part of the grid: every model with every seed and every change on every log."""

    model_config = ConfigDict(strict=True)

    logs: list[str] = Field(min_length=1)
    models: list[str] = Field(min_length=1)
    seeds: list[Seed] = Field([1, 2, 3], min_length=1)
    settings: dict[str, Any] = {}  # beyond those of the file
    vary: dict[str, Annotated[list[Any], Field(min_length=1)]] = {}

    @field_validator("seeds", mode="before")
    @classmethod
    def _counted(cls, value: Any) -> Any:
        return list(range(1, value + 1)) if isinstance(value, int) and not isinstance(value, bool) else value

    @field_validator("vary")
    @classmethod
    def _known(cls, value: dict[str, list[Any]]) -> dict[str, list[Any]]:
        for name in value:
            if name not in VARIED:
                near = ", ".join(get_close_matches(name, VARIED, 2, 0.4)) or "none"
                raise ValueError(f"{name!r} is no setting of model, samples or training (nearest: {near})")
        return value

    @property
    def changes(self) -> list[dict[str, Any]]:
        """Every combination of the changes; one without any where nothing is varied."""
        return [dict(zip(self.vary, values, strict=True)) for values in product(*self.vary.values())]


class Sweep(Strict):
    """The content of a sweep's file."""

    model_config = ConfigDict(strict=True)

    title: str = ""
    settings: dict[str, Any] = {}  # of `StudyConfig`
    threads: int = Field(1, ge=1)
    runs: list[Block] = Field(min_length=1)

    def study(self, block: Block, log: str) -> StudyConfig:
        """The settings of a block's runs on a log. Raises InputError for a wrong one."""
        settings = {**self.settings, **block.settings}
        if wrong := [name for name in settings if name in ELSEWHERE]:
            raise InputError(
                f"settings: {wrong[0]!r} cannot be set there: logs and seeds are said by each of the runs."
            )
        return StudyConfig.checked({**settings, "logs": log})


def read_sweep(path: Path) -> Sweep:
    """Read and check a sweep's file. Raises InputError with file and field; OSError where it cannot be read."""
    try:
        sweep = Sweep.model_validate(yaml.safe_load(path.read_text("utf-8")))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a YAML file ({' '.join(str(error).split())}).") from error
    except ValidationError as error:
        raise explain(error, str(path)) from error
    for number, block in enumerate(sweep.runs):
        for log in block.logs:
            try:
                sweep.study(block, log)
            except InputError as error:
                raise InputError(f"{path}: runs.{number}: {error}") from error
    return sweep
