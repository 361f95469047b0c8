"""What all studies share: their settings, their logs, and the record that the ledger reads."""

import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, field_validator

from dare_core.config import (
    OFFICIAL,
    ModelConfig,
    RunConfig,
    SampleConfig,
    TrainingConfig,
)
from dare_core.data.generated import WorldConfig, generate
from dare_core.data.logs import Log
from dare_core.intervals import Interval
from dare_core.models import model_spec
from dare_core.rules import rule_scores
from dare_core.runs import Run, RunStore
from dare_core.samples import Samples, training_counts
from dare_core.studies.chapter import ChapterConfig, ChapterRecord

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
    seeds: int = Field(3, ge=1, le=100, description="number of seeds, counted from 1")
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
    world_users: int = Field(150, ge=20, le=1_000_000, description="users of a generated world")
    world_seed: int = Field(1, ge=0)
    official_compat: bool = Field(False, description="compute as the published code does, defects included")

    @field_validator("logs", "models", check_fields=False)
    @classmethod
    def _names(cls, value: str) -> str:
        names = [name.strip() for name in value.split(",")]
        if not all(names):
            raise ValueError("expects names separated by commas")
        return ",".join(dict.fromkeys(names))

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


def resolve_log(config: StudyConfig, name: str, store: RunStore) -> Log:
    """The log of a name: a generated world is made where it is missing."""
    if name in WORLDS:
        world = WorldConfig(kind=WORLDS[name], users=config.world_users, world_seed=config.world_seed)
        return store.log(generate(world).card.name)
    return store.log(name)


@dataclass
class Experiment:
    """One log of a study, with the runs that the study asks for."""

    config: StudyConfig
    name: str  # as asked for
    log: Log
    store: RunStore
    runs: dict[tuple[str, int], Run] = field(default_factory=dict)

    @property
    def seeds(self) -> range:
        """Seeds, counted from 1."""
        return range(1, self.config.seeds + 1)

    def run_config(self, model: str, seed: int, **changes: Any) -> RunConfig:
        """The configuration of one training run; `changes` go to its model or training part."""
        model_changes = {key: changes.pop(key) for key in list(changes) if key in ModelConfig.model_fields}
        training = {
            "epochs": self.config.epochs,
            "learning_rate": self.config.learning_rate,
            "official": OFFICIAL if self.config.official_compat else (),
        }
        sizes = {"name": model, "size": self.config.size, "top_k": self.config.top_k}
        return RunConfig(
            log=self.log.card.name,
            samples=self.config.samples_for(self.log),
            model=ModelConfig.model_validate(sizes | model_changes),
            training=TrainingConfig.model_validate(training | changes),
            seed=seed,
        )

    def train(self, models: Sequence[str], **changes: Any) -> None:
        """Get the runs of every model and seed."""
        for model in models:
            for seed in self.seeds:
                self.runs[model, seed] = self.store.get(self.run_config(model, seed, **changes))

    def samples(self, seed: int) -> dict[str, Samples]:
        """The samples that every model sees with a seed."""
        return self.store.samples(self.run_config("DARE", seed))

    def test_scores(self, model: str) -> list[np.ndarray]:
        """Test probabilities (H, C) of a model, a seed each."""
        return [self.runs[model, seed].test_probability for seed in self.seeds]

    def rule_test_scores(self) -> dict[str, list[np.ndarray]]:
        """Test scores (H, C) of the rules without learning, a seed each."""
        counts = training_counts(self.log)
        scores: dict[str, list[np.ndarray]] = {}
        for seed in self.seeds:
            for name, values in rule_scores(self.samples(seed), counts).items():
                scores.setdefault(name, []).append(values)
        return scores


def log_label(experiment: Experiment) -> str:
    """The kind of log, as every number is labelled."""
    return experiment.log.card.kind


@dataclass
class Record(ChapterRecord):
    """The record of a study of click logs."""

    config: StudyConfig
    store: RunStore

    def use(self, name: str) -> Experiment:
        """Open a log, noting what it is."""
        log = resolve_log(self.config, name, self.store)
        self.logs[name] = {"name": log.card.name, "kind": log.card.kind, "fingerprint": log.fingerprint}
        return Experiment(self.config, name, log, self.store)

    def judge(
        self, claim: str, quantity: str, interval: Interval | None, experiment: Experiment, note: str = ""
    ) -> None:
        """Add a ledger row; its verdict follows from the rule."""
        self.judge_on(claim, quantity, interval, experiment.name, log_label(experiment), note)
