"""One log of a study: its samples, runs, rules without learning, and whether the models have learned; and the record
of what was judged on it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self

import numpy as np

from dare_core.config import OFFICIAL, ModelConfig, RunConfig, SampleConfig, TrainingConfig
from dare_core.data.generated import generate
from dare_core.data.logs import Log
from dare_core.data.samples import Samples, training_counts
from dare_core.data.worlds import WORLDS, AnyWorld, StyledConfig, build_world
from dare_core.evaluation.baselines import oracle_scores, rule_scores
from dare_core.evaluation.intervals import Interval, Replicates, interval, leave_out, user_groups
from dare_core.evaluation.metrics import Array, auc, resampled_auc
from dare_core.files import canonical_json, short_hash
from dare_core.report.record import ChapterRecord
from dare_core.report.verdict import Basis
from dare_core.studies.settings import StudyConfig
from dare_core.training.loop import batch_samples
from dare_core.training.runs import Run, RunStore

REFERENCE, CLAIMED = "TWIN", "DARE"
ORACLE = "oracle"
"""Name of the best possible score, on worlds that have one."""
LEARNED = 0.9
"""Competence from which models count as having learned: see `Competence`."""
FEWEST_STEPS = 300
"""Steps per epoch below which nothing is judged that needs models which have learned."""


def named_world(config: StudyConfig, name: str, seed: int = 1) -> AnyWorld | None:
    """The generated world of a name for a training seed: each has its own. None where it is a prepared log's name."""
    return config.world_settings(name, seed) if name in WORLDS else None


def resolve_log(config: StudyConfig, name: str, store: RunStore, seed: int = 1) -> Log:
    """The log of a name for a training seed; a generated world is generated where it is missing."""
    world = named_world(config, name, seed)
    return store.log(name if world is None else generate(world).card.name)


@dataclass(frozen=True)
class Competence:
    """Whether models have learned: (AUC - 1/2) of the better of DARE and TWIN, over that of the best rule without
    learning. Both are chosen on validation samples and measured on test samples, means over seeds."""

    model: str
    model_auc: float
    rule: str
    rule_interval: Interval
    steps: int  # per epoch

    @property
    def value(self) -> float:
        """The ratio."""
        level = self.rule_interval.estimate - 0.5
        return (self.model_auc - 0.5) / level if level > 0 else float("nan")

    @property
    def not_learned(self) -> str:
        """Why models that were trained so are not judged; empty where they are."""
        if self.steps < FEWEST_STEPS:
            return f"{self.steps} of at least {FEWEST_STEPS} steps per epoch"
        if self.rule_interval.estimate <= 0.5 or self.rule_interval.low <= 0.5:
            return "nothing to learn: no rule without learning is above chance"
        return "" if self.value >= LEARNED else f"the models have not learned: competence {self.value:.2f}"


@dataclass
class Experiment:
    """One log of a study (a generated one: a world per seed), with the runs that the study asks for."""

    config: StudyConfig
    name: str  # as asked for
    store: RunStore
    runs: dict[tuple[str, int], Run] = field(default_factory=dict)
    _logs: dict[int, Log] = field(default_factory=dict)
    _rules: dict[int, dict[str, dict[str, list[np.ndarray]]]] = field(default_factory=dict)  # by length of history

    @property
    def seeds(self) -> range:
        """Seeds of the trainings of a model; but for a log of one's own, counted from 1."""
        return self.config.seed_numbers

    @property
    def of_worlds(self) -> bool:
        """Whether each seed has a generated world of its own, which is then the unit of every interval."""
        return self.name in WORLDS

    @property
    def worlds(self) -> int | None:
        """Number of generated worlds; None on a log that was not generated."""
        if self.of_worlds:
            return self.config.seeds
        return 1 if self.log.card.kind == "generated log" else None

    def log_of(self, seed: int) -> Log:
        """The log with which a seed trains."""
        which = seed if self.of_worlds else 1
        if which not in self._logs:
            self._logs[which] = resolve_log(self.config, self.name, self.store, which)
        return self._logs[which]

    @property
    def log(self) -> Log:
        """The log; of a generated one, its first world."""
        return self.log_of(1)

    @cached_property
    def fingerprint(self) -> str:
        """Of the log's content; of generated worlds, of their settings but for the seed."""
        if not self.of_worlds:
            return self.log.fingerprint
        settings = {key: value for key, value in self.log.card.created_with.items() if key != "world_seed"}
        return short_hash(canonical_json(settings))

    def run_config(self, model: str, seed: int, **changes: Any) -> RunConfig:
        """The configuration of one training run; `changes` go to its model, sample or training part."""
        log = self.log_of(seed)

        def part(of: Any) -> dict[str, Any]:
            return {key: changes.pop(key) for key in list(changes) if key in of.model_fields}

        sizes = {"name": model, "size": self.config.size, "top_k": self.config.top_k} | part(ModelConfig)
        samples = self.config.samples_for(log).model_dump() | part(SampleConfig)
        training = {
            "epochs": self.config.epochs,
            "learning_rate": self.config.learning_rate,
            "batch_size": self.config.batch_size or None,
            "initial_scale": self.config.initial_scale,
            "official": OFFICIAL if self.config.official_compat else (),
        }
        return RunConfig(
            log=log.card.name,
            samples=SampleConfig.model_validate(samples),
            model=ModelConfig.model_validate(sizes),
            training=TrainingConfig.model_validate(training | changes),
            seed=seed,
        )

    def runs_at(self, model: str, **changes: Any) -> list[Run]:
        """The runs of a model at some settings, one per seed."""
        return self.compute([(model, changes)])[0]

    def compute(self, settings: Sequence[tuple[str, Mapping[str, Any]]]) -> list[list[Run]]:
        """The runs of several models and settings, one per seed of each; what is missing is computed side by side."""
        wanted = [self.run_config(model, seed, **changes) for model, changes in settings for seed in self.seeds]
        found = iter(self.store.get_many(wanted))
        return [[next(found) for _ in self.seeds] for _ in settings]

    def train(self, models: Sequence[str]) -> None:
        """Get the runs of every model and seed."""
        for model, found in zip(models, self.compute([(model, {}) for model in models]), strict=True):
            self.runs |= {(model, run_seed): run for run_seed, run in zip(self.seeds, found, strict=True)}

    def runs_of(self, model: str) -> list[Run]:
        """The runs of a trained model, one per seed."""
        return [self.runs[model, seed] for seed in self.seeds]

    @property
    def trained(self) -> list[str]:
        """The models that were trained, in that order."""
        return list(dict.fromkeys(model for model, _ in self.runs))

    def samples(self, seed: int, **changes: Any) -> dict[str, Samples]:
        """The samples that every model sees with a seed."""
        return self.store.samples(self.run_config("DARE", seed, **changes))

    def test_scores(self, model: str) -> list[np.ndarray]:
        """Test probabilities (H, C) of a model, one array per seed."""
        return [self.runs[model, seed].test_probability for seed in self.seeds]

    def rule_scores(self, split: str = "test", history: int | None = None) -> dict[str, list[np.ndarray]]:
        """Scores (H, C) of the rules without learning, one array per seed, for histories of another length too; on
        test samples also the regression that is fitted on the validation samples."""
        length = history or self.config.history
        if length not in self._rules:
            of_length = self._rules[length] = {}
            for seed in self.seeds:
                splits, log = self.samples(seed, history=length), self.log_of(seed)
                counts = training_counts(log, self.config.samples_for(log).split)
                for part, found in rule_scores(splits, counts).items():
                    for name, values in found.items():
                        of_length.setdefault(part, {}).setdefault(name, []).append(values)
        return self._rules[length][split]

    def oracle_scores(self) -> dict[str, list[np.ndarray]]:
        """Test scores (H, C) of the oracle, one array per world, by its name; nothing on a log that has none."""
        if not isinstance(named_world(self.config, self.name), StyledConfig):
            return {}
        worlds = {seed: build_world(self.config.world_settings(self.name, seed)) for seed in self.seeds}
        return {ORACLE: [oracle_scores(world, self.samples(seed)["test"]) for seed, world in worlds.items()]}

    def best_rule(self, history: int | None = None) -> tuple[str, float]:
        """The rule without learning of highest validation AUC (mean over seeds), with its test AUC."""

        def mean_auc(split: str, name: str) -> float:
            known = [self.samples(seed, history=history or self.config.history)[split].labels for seed in self.seeds]
            return float(np.mean(list(map(auc, known, self.rule_scores(split, history)[name]))))

        best = max(self.rule_scores("validation", history), key=lambda name: mean_auc("validation", name))
        return best, mean_auc("test", best)

    def groups(self, samples: Samples) -> np.ndarray | None:
        """(H,) groups of the targets' users for the jackknife; None where worlds are the unit."""
        return None if self.of_worlds else user_groups(samples.users.numpy())

    def weights(self, samples: Samples) -> Array:
        """(1 + G, H) weights of the targets: of all users, then without each group of them."""
        return leave_out(self.groups(samples), len(samples))

    def auc_replicates(
        self, scores: Sequence[np.ndarray], keep: Sequence[np.ndarray] | None = None, split: str = "test"
    ) -> Replicates:
        """(S, 1 + G) AUC of scores (H, C), one array per seed; `keep` (H, C) selects samples. NaN scores (what the
        published code leaves out) are left out."""
        rows = []
        for i, (seed, values) in enumerate(zip(self.seeds, scores, strict=True)):
            samples = self.samples(seed)[split]
            mask = ~np.isnan(values) if keep is None else keep[i] & ~np.isnan(values)
            weights = self.weights(samples)[:, np.nonzero(mask)[0]]
            rows.append(resampled_auc(samples.labels[mask], values[mask], weights))
        return np.stack(rows)

    def auc_of(self, runs: Sequence[Run]) -> Replicates:
        """(S, 1 + G) test AUC of runs, one per seed."""
        return self.auc_replicates([run.test_probability for run in runs])

    @cached_property
    def competence(self) -> Competence:
        """Of DARE and TWIN at the study's own settings, which are trained where they are missing."""
        runs = {model: self.runs_at(model) for model in (REFERENCE, CLAIMED)}
        model = max(runs, key=lambda name: float(np.mean([run.best.auc for run in runs[name]])))
        rule, _ = self.best_rule()
        level = interval(self.auc_replicates(self.rule_scores()[rule]))
        return Competence(model, float(self.auc_of(runs[model])[:, 0].mean()), rule, level, self.steps)

    @property
    def training_samples(self) -> int:
        """Samples of one epoch, negatives included (mean over worlds)."""
        return round(float(np.mean([self.samples(seed)["train"].size for seed in self.seeds])))

    @property
    def batch_size(self) -> int:
        """Samples per optimiser step."""
        return batch_samples(self.run_config("DARE", 1).training, self.training_samples)

    @property
    def steps(self) -> int:
        """Optimiser steps per epoch."""
        return -(-self.training_samples // self.batch_size)

    def basis(self, learned: bool) -> Basis:
        """What a number of this log rests on; `learned`: with the models' competence."""
        return Basis(
            log=self.name,
            kind=self.log.card.kind,
            fingerprint=self.fingerprint,
            embedding_size=self.config.size,
            training_samples=self.training_samples,
            seeds=self.config.seeds,
            worlds=self.worlds,
            retrieved=self.config.top_k,
            batch_size=self.batch_size,
            steps_per_epoch=self.steps,
            best_rule=self.competence.rule if learned else None,
            device=self.store.device,
            threads=self.store.threads,
            code=self.store.code,
            competence=self.competence.value if learned and np.isfinite(self.competence.value) else None,
            not_learned=self.competence.not_learned if learned else "",
        )


@dataclass
class Record(ChapterRecord):
    """The record of a study of click logs."""

    config: StudyConfig
    store: RunStore

    @classmethod
    def start(cls, chapter: str, config: StudyConfig) -> Self:
        """The empty record of a chapter, with the store of runs."""
        return cls(chapter, config, RunStore())

    def use_all(self) -> list[Experiment]:
        """Open every log that is asked for."""
        return [self.use(name) for name in self.config.log_names]

    def use(self, name: str) -> Experiment:
        """Open a log, noting what it is."""
        experiment = Experiment(self.config, name, self.store)
        worlds = [experiment.log_of(seed).fingerprint for seed in experiment.seeds] if experiment.of_worlds else []
        self.logs[name] = {
            "name": experiment.log.card.name,
            "kind": experiment.log.card.kind,
            "fingerprint": experiment.fingerprint,
            **({"worlds": worlds} if worlds else {}),
        }
        return experiment
