"""Runs of click models: the store that trains what is missing, and what it gives.

A run is its configuration, the content of its log, the code that computes it, and the circumstances that its numbers
depend on (`dare_core.training.store`).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file as load_arrays
from safetensors.torch import load_file
from tqdm import tqdm

from dare_core.config import RunConfig, SampleConfig
from dare_core.data.logs import Log, load
from dare_core.data.samples import Samples, make_samples, target_rows
from dare_core.models.embeddings import Counts
from dare_core.models.zoo import ClickModel, build_model, compose
from dare_core.schedule import in_processes, side_by_side
from dare_core.training.code_hash import code_hash
from dare_core.training.devices import COPIES, free_memory, size_of
from dare_core.training.gradients import GradientRecord
from dare_core.training.loop import batch_samples, seeds_of, train
from dare_core.training.store import (
    ClickRecord,
    Payload,
    Store,
    Validation,
    click_circumstances,
    click_key,
    environment,
    runs_root,
)

WEIGHTS, ARRAYS = ClickRecord.FILES
PREFIX = "gradients."
"""Of the names of recorded gradients among the arrays."""
CODE = (train.__module__, build_model.__module__, make_samples.__module__)
"""Modules that compute a run, with all that they import."""
LOGS = 8
"""Logs that a store keeps in memory: a study of several generated worlds alternates between them."""


@dataclass(frozen=True)
class Run:
    """A finished run."""

    key: str
    config: RunConfig
    history: list[Validation]
    best: Validation
    validation_probability: np.ndarray  # (V, H, C) at each line of the history
    test_probability: np.ndarray  # (H, C), the clicked candidate first
    gradients: GradientRecord | None
    parameters: int
    seconds: float
    samples_per_second: float
    created: str
    reused: bool

    @property
    def folder(self) -> Path:
        """Its folder in the store."""
        return runs_root() / self.key

    def model(self, log: Log) -> ClickModel:
        """The model with the run's weights, in evaluation mode."""
        model = build_model(self.config.model, counts_of(log, self.config.samples), self.config.training)
        model.load_state_dict(load_file(self.folder / WEIGHTS))
        return model.eval()


def counts_of(log: Log, samples: SampleConfig) -> Counts:
    """Sizes of the embedding tables."""
    return Counts(log.card.items, log.card.categories, samples.history)


def read_run(key: str) -> Run:
    """Read a stored run and verify it. Raises InputError when it is missing or damaged."""
    record = ClickRecord.read(runs_root() / key)
    arrays = load_arrays(runs_root() / key / ARRAYS)
    gradients = None
    if record.gradient_fields:
        values = {name.removeprefix(PREFIX): array for name, array in arrays.items() if name.startswith(PREFIX)}
        gradients = GradientRecord(field=np.array(record.gradient_fields), **values)
    names = [entry.name for entry in fields(Run) if entry.name in ClickRecord.model_fields]
    return Run(
        **{name: getattr(record, name) for name in names},
        validation_probability=arrays["validation_probability"],
        test_probability=arrays["test_probability"],
        gradients=gradients,
        reused=True,
    )


@dataclass
class _Opened:
    """A log in memory, with what was made of it."""

    log: Log
    samples: dict[tuple[SampleConfig, int], dict[str, Samples]] = field(default_factory=dict)  # by seed
    targets: dict[SampleConfig, int] = field(default_factory=dict)  # of training


class RunStore(Store):
    """Gives runs, training what is missing on a device; keeps the last `LOGS` logs and their samples in memory."""

    def __init__(self, progress: bool = True, device: str = "cpu", threads: int = 1) -> None:
        super().__init__(progress)
        self.device = device
        self.threads = threads
        self._open = lru_cache(LOGS)(lambda name: _Opened(load(name)))

    def log(self, name: str) -> Log:
        """A prepared log."""
        return self._open(name).log

    def samples(self, config: RunConfig) -> dict[str, Samples]:
        """The samples of a run by split: those of all models with the same seed are the same."""
        opened = self._open(config.log)
        key = config.samples, seeds_of(config)[2]
        if key not in opened.samples:
            opened.samples[key] = make_samples(opened.log, *key)
        return opened.samples[key]

    def training_samples(self, config: RunConfig) -> int:
        """Samples of an epoch, without making the samples."""
        opened = self._open(config.log)
        if config.samples not in opened.targets:
            opened.targets[config.samples] = len(target_rows(opened.log, config.samples)["train"][0])
        return opened.targets[config.samples] * (1 + config.samples.negatives)

    def _batch_samples(self, config: RunConfig) -> int:
        return batch_samples(config.training, self.training_samples(config))

    def _weights(self, config: RunConfig) -> int:
        """Bytes of a run's weights, without allocating them."""
        with torch.device("meta"):
            model = compose(config.model, counts_of(self.log(config.log), config.samples), config.training)
        return size_of(*model.state_dict().values())

    @property
    def code(self) -> str:
        """Hash of the code that computes runs."""
        return code_hash(CODE)

    def _environment(self) -> dict[str, Any]:
        return environment() | {"device": self.device, "threads": self.threads}

    def key(self, config: RunConfig) -> str:
        """The content hash of a run, as this store computes it."""
        circumstances = click_circumstances(self._environment(), self._batch_samples(config))
        return click_key(config, self.log(config.log).fingerprint, self.code, circumstances)

    def get(self, config: RunConfig) -> Run:
        """The run of a configuration: read where it is stored, trained and stored where not."""
        folder = runs_root() / self.key(config)
        run, computed = self._stored(folder, lambda folder: read_run(folder.name), lambda: self._train(config))
        return replace(run, reused=not computed)

    def get_many(self, configs: Sequence[RunConfig]) -> list[Run]:
        """Several runs, in order; what is missing is computed in as many processes as `side_by_side` says.

        A GPU has one at a time. After a failure nothing new starts; what is finished stays, also when interrupted.
        """
        keys = [self.key(config) for config in configs]
        missing = {key: config for key, config in zip(keys, configs, strict=True) if not (runs_root() / key).is_dir()}
        workers = min(len(missing), side_by_side() // self.threads) if self.device == "cpu" else 1
        if workers > 1:  # fewer where memory does not hold as many
            largest = max(self._weights(config) for config in missing.values())
            workers = min(workers, max(1, free_memory() // (COPIES * largest)))
        with tqdm(total=len(missing), unit="run", disable=None if self.progress else True, leave=False) as bar:
            if workers > 1:
                for key in in_processes(partial(_compute, threads=self.threads), missing.values(), workers):
                    if key:
                        self._count(key)
                    bar.update()
            else:
                for config in missing.values():
                    self.get(config)
                    bar.update()
        runs = [self.get(config) for config in configs]
        return [replace(run, reused=run.reused and run.key not in missing) for run in runs]

    def _train(self, config: RunConfig) -> Payload:
        log, splits = self.log(config.log), self.samples(config)
        counts = counts_of(log, config.samples)
        make = partial(build_model, config.model, counts, config.training, seeds_of(config)[0])
        trained = train(config, splits, make, self.progress, self.device, threads=self.threads)
        arrays = {name: getattr(trained, name) for name in ("validation_probability", "test_probability")}
        recorded = asdict(trained.gradients) if trained.gradients is not None else {"field": []}
        gradient_fields = [str(name) for name in recorded.pop("field")]
        arrays |= {PREFIX + name: np.ascontiguousarray(value) for name, value in recorded.items()}
        content = {
            "code": self.code,
            "config": config.model_dump(mode="json"),
            "log": {"name": log.card.name, "fingerprint": log.fingerprint},
            "batch_samples": self._batch_samples(config),
            "history": [asdict(line) for line in trained.history],
            "best": asdict(trained.best),
            "gradient_fields": gradient_fields,
            "parameters": sum(p.numel() for p in trained.model.parameters()),
            "seconds": round(trained.seconds, 3),
            "samples_per_second": round(trained.samples_per_second, 1),
            "environment": self._environment(),
        }
        weights = {name: tensor.contiguous().numpy() for name, tensor in trained.model.state_dict().items()}
        return Payload(content, {WEIGHTS: weights, ARRAYS: arrays})


_stores: dict[int, RunStore] = {}
"""Stores of a process that computes runs for another one, by number of threads: they keep logs from run to run."""


def _compute(config: RunConfig, threads: int) -> str:
    """Compute a run unless it is stored; returns its key, or nothing where it was stored."""
    store = _stores.setdefault(threads, RunStore(progress=False, threads=threads))
    run = store.get(config)
    return "" if run.reused else run.key
