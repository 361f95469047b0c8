"""Finished runs by content hash: computed once, stored whole, verified when read.

A run is its configuration and the content of its log; asked for again it is read back. Layout:
`runs/<key>/` with `run.json`, `weights.safetensors` and `arrays.safetensors`.
"""

import json
import platform
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file, save_file

from dare_core.config import RunConfig, SampleConfig
from dare_core.data.logs import Log, load
from dare_core.embeddings import Counts
from dare_core.errors import InputError
from dare_core.files import atomic_folder, canonical_json, sha256_of, short_hash, store_root, write_json
from dare_core.gradients import GradientRecord
from dare_core.models import ClickModel, build_model
from dare_core.samples import Samples, make_samples
from dare_core.schedule import computing
from dare_core.training import Validation, seeds_of, train

RESULTS_VERSION = 3
"""Raised whenever the code computes something else from the same configuration: old runs are not reused."""
FILES = ("weights.safetensors", "arrays.safetensors")


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


def run_key(config: RunConfig, fingerprint: str) -> str:
    """Content hash of a run: configuration, log content and version of what is computed.

    The log's name is left out: the same content under another name is the same run.
    """
    settings = config.model_dump(mode="json", exclude={"log"})
    return short_hash(canonical_json([RESULTS_VERSION, fingerprint, settings]))


class RunStore:
    """Gives runs, computing what is missing on a device; keeps the last log and its samples in memory."""

    def __init__(self, progress: bool = True, device: str = "cpu") -> None:
        self.progress = progress
        self.device = device
        self.computed = 0
        self.reused = 0
        self._log: Log | None = None
        self._samples: dict[str, dict[str, Samples]] = {}

    def log(self, name: str) -> Log:
        """A prepared log."""
        if self._log is None or self._log.card.name != name:
            self._log, self._samples = load(name), {}
        return self._log

    def samples(self, config: RunConfig) -> dict[str, Samples]:
        """The samples of a run: those of all models with the same seed are the same."""
        log = self.log(config.log)
        seed = seeds_of(config)[2]
        key = canonical_json([config.samples.model_dump(mode="json"), seed])
        if key not in self._samples:
            self._samples[key] = make_samples(log, config.samples, seed)
        return self._samples[key]

    def get(self, config: RunConfig) -> Run:
        """The run of a configuration: read where it is stored, computed and stored where not."""
        log = self.log(config.log)
        key = run_key(config, log.fingerprint)
        if (runs_root() / key).is_dir():
            try:
                run = read_run(key)
            except InputError:  # damaged: what cannot be verified is computed again
                shutil.rmtree(runs_root() / key)
            else:
                self.reused += 1
                return run
        splits = self.samples(config)
        counts = counts_of(log, config.samples)
        with computing():
            trained = train(
                config,
                splits,
                lambda: build_model(config.model, counts, config.training, seeds_of(config)[0]),
                self.progress,
                self.device,
            )
        arrays = {
            "validation_probability": trained.validation_probability,
            "test_probability": trained.test_probability,
        }
        if trained.gradients is not None:
            record = trained.gradients.arrays()
            fields = [str(name) for name in record.pop("field")]
            arrays |= {f"gradients.{name}": np.ascontiguousarray(value) for name, value in record.items()}
        else:
            fields = []
        with atomic_folder(runs_root() / key) as folder:
            weights = {name: tensor.contiguous() for name, tensor in trained.model.state_dict().items()}
            save_file(weights, folder / FILES[0])
            save_arrays(arrays, folder / FILES[1])
            write_json(
                folder / "run.json",
                {
                    "key": key,
                    "results_version": RESULTS_VERSION,
                    "config": config.model_dump(mode="json"),
                    "log": {"name": log.card.name, "fingerprint": log.fingerprint},
                    "history": [asdict(line) for line in trained.history],
                    "best": asdict(trained.best),
                    "gradient_fields": fields,
                    "parameters": sum(p.numel() for p in trained.model.parameters()),
                    "seconds": round(trained.seconds, 3),
                    "samples_per_second": round(trained.samples_per_second, 1),
                    "created": datetime.now(UTC).isoformat(timespec="seconds"),
                    "environment": environment() | {"device": self.device},
                    "sha256": {name: sha256_of(folder / name) for name in FILES},
                },
            )
        self.computed += 1
        return read_run(key, reused=False)

    def get_all(self, configs: Iterable[RunConfig]) -> list[Run]:
        """Several runs, in order."""
        return [self.get(config) for config in configs]


def processor() -> str:
    """The processor's name, as the system gives it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def environment() -> dict[str, Any]:
    """What a result may depend on beside its configuration; stored with it, not hashed."""
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
    try:
        stored = json.loads((folder / "run.json").read_text("utf-8"))
        for name, digest in stored["sha256"].items():
            if sha256_of(folder / name) != digest:
                raise InputError(f"Run {key}: {name} is not what was stored; `dare runs remove {key}`.")
        config = RunConfig.model_validate(stored["config"])
        arrays = load_arrays(folder / FILES[1])
    except (OSError, ValueError, KeyError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"Run {key} is missing or damaged ({error}); `dare runs list` shows all.") from error
    gradients = None
    if stored["gradient_fields"]:
        record = {
            name.removeprefix("gradients."): value for name, value in arrays.items() if name.startswith("gradients.")
        }
        gradients = GradientRecord(field=np.array(stored["gradient_fields"]), **record)
    return Run(
        key,
        config,
        [Validation(**line) for line in stored["history"]],
        Validation(**stored["best"]),
        arrays["validation_probability"],
        arrays["test_probability"],
        gradients,
        stored["parameters"],
        stored["seconds"],
        stored["samples_per_second"],
        stored["created"],
        reused,
    )


def list_runs() -> list[Run]:
    """All stored runs that can be read, oldest first."""
    found = []
    for folder in sorted(runs_root().glob("[0-9a-f]*")):
        try:
            found.append(read_run(folder.name))
        except InputError:
            continue
    return sorted(found, key=lambda run: run.created)


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
    shutil.rmtree(runs_root() / key)
    return key
