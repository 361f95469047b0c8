"""Finished runs by content hash: computed once, stored whole, verified when read.

A run is its configuration, the content of its log, the code that computes it, and the circumstances that its numbers
depend on (`run_key`); asked for again it is read back. Layout: `runs/<key>/` with `run.json`, `weights.safetensors`
and `arrays.safetensors`.
"""

import platform
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from dare_core.config import RunConfig, SampleConfig
from dare_core.data.logs import Log, load
from dare_core.data.samples import Samples, make_samples, target_rows
from dare_core.errors import InputError
from dare_core.files import atomic_folder, canonical_json, locked, remove_folder, short_hash, store_root
from dare_core.models.click_model import ClickModel
from dare_core.models.embeddings import Counts
from dare_core.models.zoo import build_model
from dare_core.schedule import computing, in_processes, side_by_side
from dare_core.training.code_hash import code_hash
from dare_core.training.gradients import GradientRecord
from dare_core.training.loop import Trained, Validation, batch_samples, seeds_of, train
from dare_core.training.run_files import RunRecord, write_record

FILES = ("weights.safetensors", "arrays.safetensors")
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
        """Where it is stored."""
        return runs_root() / self.key

    def model(self, log: Log) -> ClickModel:
        """The model with the run's weights, in evaluation mode."""
        model = build_model(self.config.model, counts_of(log, self.config.samples), self.config.training)
        model.load_state_dict(load_file(self.folder / FILES[0]))
        return model.eval()


def runs_root() -> Path:
    """Folder of all runs."""
    return store_root() / "runs"


def counts_of(log: Log, samples: SampleConfig) -> Counts:
    """Sizes of the embedding tables."""
    return Counts(log.card.items, log.card.categories, samples.history)


def run_key(config: RunConfig, fingerprint: str, **parts: str | int) -> str:
    """Content hash of a run: configuration, log content, code, and `parts`, the circumstances that matter.

    The log's name is left out: the same content under another name is the same run.
    """
    settings = config.model_dump(mode="json", exclude={"log"})
    return short_hash(canonical_json([fingerprint, settings, {"code": code_hash(CODE)} | parts]))


class _Record(RunRecord):
    """`run.json`."""

    config: RunConfig
    log: dict[str, str]
    batch_samples: int  # per step, as `batch_size` or the recipe says
    history: list[Validation]
    best: Validation
    gradient_fields: list[str]
    parameters: int
    samples_per_second: float

    def computed_key(self) -> str:
        """The key by the content."""
        parts = _parts(self.environment, self.batch_samples)
        return run_key(self.config, self.log["fingerprint"], code=self.code, **parts)


def _parts(environment: dict[str, str | int], batch: int) -> dict[str, str | int]:
    """The circumstances that a run's numbers depend on."""
    device = str(environment["device"]).partition(":")[0]
    return {"device": device, "threads": environment["threads"], "torch": environment["torch"], "batch_samples": batch}


@dataclass
class _Opened:
    """A log in memory, with what was made of it."""

    log: Log
    samples: dict[str, dict[str, Samples]] = field(default_factory=dict)
    targets: dict[SampleConfig, int] = field(default_factory=dict)  # of training


class RunStore:
    """Gives runs, computing what is missing on a device; keeps the last `LOGS` logs and their samples in memory."""

    def __init__(self, progress: bool = True, device: str = "cpu", threads: int = 1) -> None:
        self.progress = progress
        self.device = device
        self.threads = threads
        self.computed = 0
        self._own: set[str] = set()  # keys of what was computed
        self._given: set[str] = set()
        self._logs: OrderedDict[str, _Opened] = OrderedDict()

    @property
    def reused(self) -> int:
        """Runs that were there already, each counted once."""
        return len(self._given - self._own)

    def _open(self, name: str) -> _Opened:
        if name not in self._logs:
            self._logs[name] = _Opened(load(name))
            if len(self._logs) > LOGS:
                self._logs.popitem(last=False)
        self._logs.move_to_end(name)
        return self._logs[name]

    def log(self, name: str) -> Log:
        """A prepared log."""
        return self._open(name).log

    def samples(self, config: RunConfig) -> dict[str, Samples]:
        """The samples of a run: those of all models with the same seed are the same."""
        opened = self._open(config.log)
        seed = seeds_of(config)[2]
        key = canonical_json([config.samples.model_dump(mode="json"), seed])
        if key not in opened.samples:
            opened.samples[key] = make_samples(opened.log, config.samples, seed)
        return opened.samples[key]

    def _batch_samples(self, config: RunConfig) -> int:
        """Samples per step, without making the samples."""
        opened = self._open(config.log)
        if config.samples not in opened.targets:
            opened.targets[config.samples] = len(target_rows(opened.log, config.samples)["train"][0])
        return batch_samples(config.training, opened.targets[config.samples] * (1 + config.samples.negatives))

    def _environment(self) -> dict[str, str | int]:
        return environment() | {"device": self.device, "threads": self.threads}

    def key(self, config: RunConfig) -> str:
        """The content hash of a run, as this store computes it."""
        parts = _parts(self._environment(), self._batch_samples(config))
        return run_key(config, self.log(config.log).fingerprint, **parts)

    def get(self, config: RunConfig) -> Run:
        """The run of a configuration: read where it is stored, computed and stored where not.

        It is computed once, by whoever asks first; others wait.
        """
        key = self.key(config)
        folder = runs_root() / key
        self._given.add(key)
        with locked(folder):
            if folder.is_dir():
                try:
                    return read_run(key)
                except InputError:  # damaged: what cannot be verified is computed again
                    remove_folder(folder)
            self._keep(config, folder, self._train(config))
        self._count(key)
        return read_run(key, reused=False)

    def _count(self, key: str) -> None:
        self.computed += 1
        self._own.add(key)

    def _train(self, config: RunConfig) -> Trained:
        splits = self.samples(config)
        counts = counts_of(self.log(config.log), config.samples)
        with computing():
            return train(
                config,
                splits,
                lambda: build_model(config.model, counts, config.training, seeds_of(config)[0]),
                self.progress,
                self.device,
                threads=self.threads,
            )

    def _keep(self, config: RunConfig, folder: Path, trained: Trained) -> None:
        """Store a run."""
        arrays = {
            "validation_probability": trained.validation_probability,
            "test_probability": trained.test_probability,
        }
        fields: list[str] = []
        if trained.gradients is not None:
            record = trained.gradients.arrays()
            fields = [str(name) for name in record.pop("field")]
            arrays |= {f"gradients.{name}": np.ascontiguousarray(value) for name, value in record.items()}
        log = self.log(config.log)
        content = {
            "key": folder.name,
            "code": code_hash(CODE),
            "config": config.model_dump(mode="json"),
            "log": {"name": log.card.name, "fingerprint": log.fingerprint},
            "batch_samples": self._batch_samples(config),
            "history": [asdict(line) for line in trained.history],
            "best": asdict(trained.best),
            "gradient_fields": fields,
            "parameters": sum(p.numel() for p in trained.model.parameters()),
            "seconds": round(trained.seconds, 3),
            "samples_per_second": round(trained.samples_per_second, 1),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "environment": self._environment(),
        }
        with atomic_folder(folder) as temporary:
            weights = {name: tensor.contiguous() for name, tensor in trained.model.state_dict().items()}
            save_file(weights, temporary / FILES[0])
            save_arrays(arrays, temporary / FILES[1])
            write_record(temporary, content, FILES)

    def get_many(self, configs: Sequence[RunConfig]) -> list[Run]:
        """Several runs, in order; what is missing is computed side by side, as many processes as `side_by_side` says.

        A GPU has one at a time. After a failure nothing new starts; what is finished stays, also when interrupted.
        """
        keys = [self.key(config) for config in configs]
        missing = {key: config for key, config in zip(keys, configs, strict=True) if not (runs_root() / key).is_dir()}
        workers = min(len(missing), side_by_side() // self.threads) if self.device == "cpu" else 1
        with tqdm(total=len(missing), unit="run", disable=None if self.progress else True, leave=False) as bar:
            if workers > 1:
                work = partial(_compute, threads=self.threads)
                for key in in_processes(work, missing.values(), workers):
                    if key:
                        self._count(key)
                    bar.update()
            else:
                for config in missing.values():
                    self.get(config)
                    bar.update()
        runs = [self.get(config) for config in configs]
        return [replace(run, reused=run.reused and run.key not in missing) for run in runs]


_stores: dict[int, RunStore] = {}
"""Of a process that computes runs for another one, by number of threads: they keep logs from run to run."""


def _compute(config: RunConfig, threads: int) -> str:
    """Compute a run unless it is stored; returns its key, or nothing where it was stored."""
    store = _stores.setdefault(threads, RunStore(progress=False, threads=threads))
    run = store.get(config)
    return "" if run.reused else run.key


def processor() -> str:
    """The processor's name, as the system gives it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def environment() -> dict[str, Any]:
    """What a result may depend on besides its configuration; stored with it."""
    return {
        "python": platform.python_version(),
        "torch": version("torch").partition("+")[0],
        "machine": platform.machine(),
        "processor": processor(),
        "threads": torch.get_num_threads(),
    }


def read_run(key: str, reused: bool = True) -> Run:
    """Read a stored run and verify it. Raises InputError when it is missing or damaged."""
    folder = runs_root() / key
    record = _Record.read(folder, FILES)
    arrays = load_arrays(folder / FILES[1])
    gradients = None
    if record.gradient_fields:
        heard = {
            name.removeprefix("gradients."): value for name, value in arrays.items() if name.startswith("gradients.")
        }
        gradients = GradientRecord(field=np.array(record.gradient_fields), **heard)
    return Run(
        key,
        record.config,
        record.history,
        record.best,
        arrays["validation_probability"],
        arrays["test_probability"],
        gradients,
        record.parameters,
        record.seconds,
        record.samples_per_second,
        record.created,
        reused,
    )


def runs_and_damaged() -> tuple[list[Run], list[str]]:
    """All stored runs that can be read, oldest first, and the keys of those that are damaged."""
    found, damaged = [], []
    for folder in sorted(runs_root().glob("[0-9a-f]*")):
        try:
            found.append(read_run(folder.name))
        except InputError:
            damaged.append(folder.name)
    return sorted(found, key=lambda run: run.created), damaged


def list_runs() -> list[Run]:
    """All stored runs that can be read, oldest first."""
    return runs_and_damaged()[0]


def find_run(prefix: str) -> str:
    """The full key of a run by the start of it. Raises InputError when none or several match."""
    keys = [folder.name for folder in runs_root().glob("[0-9a-f]*") if folder.name.startswith(prefix)]
    if len(keys) != 1:
        what = "No stored run" if not keys else f"{len(keys)} stored runs"
        raise InputError(f"{what} with a key that starts with {prefix!r}: `dare runs list` shows all.")
    return keys[0]


def remove_run(prefix: str) -> str:
    """Remove a run; returns its key."""
    key = find_run(prefix)
    remove_folder(runs_root() / key)
    return key
