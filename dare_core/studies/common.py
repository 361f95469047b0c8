"""Settings of all studies of click logs, and the logs that they name."""

import typing
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, field_validator

from dare_core.config import SampleConfig
from dare_core.data.generated import WorldConfig, generate
from dare_core.data.logs import Log
from dare_core.models.zoo import model_spec
from dare_core.report.record import ChapterConfig
from dare_core.training.runs import RunStore

WORLDS = {
    "generated": "twin",
    "independent": "independent",
    "no_decay": "no_decay",
    "no_semantics": "no_semantics",
}
"""Names of generated worlds; any other name is that of a prepared log."""
NULL_WORLDS = ("independent", "no_decay", "no_semantics")


class StudyConfig(ChapterConfig):
    """What every study can be told. Names in `logs` and `models` are separated by commas."""

    logs: str = Field("generated", description="generated, independent, no_decay, no_semantics or prepared logs")
    size: int = Field(16, ge=1, le=1_024, description="embedding size a field")
    seeds: int = Field(3, ge=1, le=100, description="trainings per model; on a generated log each has its own world")
    epochs: int = Field(2, ge=1, le=100)
    top_k: int = Field(20, ge=1)
    history: int = Field(200, ge=1, le=100_000, description="behaviours before the target")
    targets: int = Field(19, ge=1, le=1_000, description="training targets a user")
    spacing: int = Field(5, ge=1, le=1_000)
    shortest_user: int = Field(210, ge=4)
    negatives: int = Field(2, ge=1, le=50)
    negative_rule: Literal["auto", "unclicked", "any"] = Field(
        "auto", description="auto: any on the null worlds, unclicked elsewhere"
    )
    learning_rate: float = Field(0.01, gt=0, le=1)
    batch_size: int = Field(0, ge=0, le=1_000_000, description="samples per step; 0: by the recipe (chapter Method)")
    initial_scale: float = Field(0.01, gt=0, le=10, description="standard deviation of initial weights")
    world_users: int = Field(200, ge=20, le=1_000_000, description="users of a generated world")
    world_items: int = Field(60_000, ge=100, le=100_000_000, description="items of a generated world")
    world_categories: int = Field(2_900, ge=2, le=1_000_000, description="categories of a generated world")
    world_seed: int = Field(1, ge=0, description="seed of the first generated world; each training seed has its own")
    official_compat: bool = Field(False, description="compute as the published code does, defects included")

    @field_validator("logs", "models", check_fields=False)
    @classmethod
    def _names(cls, value: str) -> str:
        names = [name.strip() for name in value.split(",")]
        if not all(names):
            raise ValueError("expects names separated by commas")
        return ",".join(dict.fromkeys(names))

    @field_validator("batch_size")
    @classmethod
    def _more_than_one(cls, value: int) -> int:
        if value == 1:
            raise ValueError("expects 2 or more samples per step, or 0 for the recipe")
        return value

    @classmethod
    def checked(cls, values: Mapping[str, Any]) -> Self:
        """Validate values, models' names too."""
        config = super().checked(values)
        for name in config.model_names:
            model_spec(name)
        return config

    @property
    def log_names(self) -> list[str]:
        """The logs asked for."""
        return self.logs.split(",")

    @property
    def model_names(self) -> list[str]:
        """The models asked for; none where the study trains none."""
        return typing.cast(str, getattr(self, "models", "")).split(",") if hasattr(self, "models") else []

    def samples_for(self, log: Log) -> SampleConfig:
        """How samples are cut from a log."""
        null_world = log.card.kind == "generated log" and log.card.created_with.get("kind") in NULL_WORLDS
        rule = self.negative_rule
        if rule == "auto":
            rule = "any" if null_world else "unclicked"
        return SampleConfig(
            history=self.history,
            targets=self.targets,
            spacing=self.spacing,
            shortest_user=self.shortest_user,
            negatives=self.negatives,
            negative_rule=rule,
        )


def resolve_log(config: StudyConfig, name: str, store: RunStore, seed: int = 1) -> Log:
    """The log of a name for a training seed: each has its own world, which is generated where it is missing."""
    if name not in WORLDS:
        return store.log(name)
    world = WorldConfig(
        kind=WORLDS[name],
        users=config.world_users,
        items=max(config.world_items, config.world_categories),
        categories=config.world_categories,
        world_seed=config.world_seed + seed - 1,
    )
    return store.log(generate(world).card.name)
