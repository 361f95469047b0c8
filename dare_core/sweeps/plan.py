"""The runs of a sweep: their configurations, which come from `Experiment.run_config`, their keys and what they need."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError

from dare_core.config import RunConfig, explain
from dare_core.data.generated import SOURCE
from dare_core.data.logs import Card, Log, available
from dare_core.data.worlds import AnyWorld
from dare_core.errors import InputError
from dare_core.models.zoo import compose
from dare_core.studies.experiment import Experiment, named_world
from dare_core.studies.settings import StudyConfig
from dare_core.sweeps.grid import Sweep
from dare_core.training.devices import COPIES, size_of
from dare_core.training.runs import RunStore, counts_of
from dare_core.training.store import ClickRecord, runs_root

Changes = dict[str, Any]
BYTES_OF_A_CLICK = 64
"""Memory of a click while a run is computed: the log, its samples and what is made on the way."""


@dataclass(frozen=True)
class Planned:
    """One run of a sweep. Where its world is not generated, key and fingerprint are empty."""

    log: str  # as the file names it
    settings: StudyConfig
    world: AnyWorld | None  # of a generated log
    config: RunConfig
    changes: Changes
    key: str
    fingerprint: str
    samples: int  # of all epochs; of a world that is not generated, at most
    memory: int  # bytes

    @property
    def name(self) -> str:
        """The run in words."""
        changed = "".join(f", {name} {value}" for name, value in self.changes.items())
        return f"{self.config.model.name} on {self.log}, seed {self.config.seed}{changed}"

    @property
    def stored(self) -> bool:
        """Whether it is in the store, by a sound `run.json`."""
        try:
            return bool(self.key and ClickRecord.read(runs_root() / self.key, whole=False))
        except InputError:
            return False


def is_generated(world: AnyWorld) -> bool:
    """Whether the log of a world is stored."""
    options = world.model_dump(mode="json")
    return any(card.source == SOURCE and card.created_with == options for card in available())


def _stand_in(world: AnyWorld) -> Log:
    """What a configuration needs to know of the log of a world that is not generated."""
    sizes = {"users": world.users, "items": world.items, "categories": world.categories, "rows_read": 0, "rows_kept": 0}
    facts = {"name": "not-generated", "title": "", "kind": "generated log", "source": SOURCE, "terms": "", "sha256": ""}
    card = Card.model_validate(facts | sizes | {"filters": [], "created_with": world.model_dump(mode="json")})
    return Log(card, *[np.empty(0, np.int32)] * 4)


def _planned(experiment: Experiment, world: AnyWorld | None, model: str, seed: int, changes: Changes) -> Planned:
    """One run. Raises InputError for a model or value that cannot be."""
    log = experiment.log_of(seed)
    try:
        config = experiment.run_config(model, seed, **changes)
    except ValidationError as error:
        raise explain(error, "vary") from error
    with torch.device("meta"):
        built = compose(config.model, counts_of(log, config.samples), config.training)
    key, samples = "", log.card.users * config.samples.targets * (1 + config.samples.negatives)
    if log.fingerprint:
        key, samples = experiment.store.key(config), experiment.store.training_samples(config)
    memory = COPIES * size_of(*built.state_dict().values()) + BYTES_OF_A_CLICK * log.card.rows_kept
    of_all = samples * config.training.epochs
    asked = experiment.name, experiment.config, world, config, changes
    return Planned(*asked, key, log.fingerprint, of_all, memory)


def plan(sweep: Sweep, path: Path, device: str, threads: int) -> tuple[list[Planned], int]:
    """The runs of a sweep, each once, and how many were listed again. No world is generated.

    A world that is not stored stands for itself by its configuration. Raises InputError with file and block for a
    model, a value or a log that cannot be.
    """
    found: dict[Any, Planned] = {}
    listed = 0
    for number, block in enumerate(sweep.runs):
        try:
            for log in block.logs:
                settings, store = sweep.study(block, log), RunStore(False, device, threads)
                for seed in block.seeds:
                    world, stand_in = named_world(settings, log, seed), {}
                    if world is not None:  # a store of its own, so that one world at a time is in memory
                        store = RunStore(False, device, threads)
                        stand_in = {} if is_generated(world) else {seed: _stand_in(world)}
                    experiment = Experiment(settings, log, store, _logs=stand_in)
                    for model, changes in product(block.models, block.changes):
                        run = _planned(experiment, world, model, seed, changes)
                        found.setdefault(run.key or (world, run.config), run)
                        listed += 1
        except InputError as error:
            raise InputError(f"{path}: runs.{number}: {error}") from error
    return list(found.values()), listed - len(found)


def with_keys(runs: Sequence[Planned], device: str, threads: int) -> Iterator[Planned]:
    """The same runs, their worlds generated where that is needed to know their keys, one world at a time."""
    opened: Experiment | None = None
    for run in runs:
        if run.key:
            yield run
            continue
        seed = run.config.seed
        if opened is None or (opened.config, opened.name, [*opened._logs]) != (run.settings, run.log, [seed]):
            opened = Experiment(run.settings, run.log, RunStore(False, device, threads))
        yield _planned(opened, run.world, run.config.model.name, seed, run.changes)
