"""The store of finished runs: each computed once, stored whole, verified when read. Nothing here needs PyTorch.

A run lies in a folder that is named by its content hash: `run.json`, with the SHA-256 of every file and of itself,
and arrays in safetensors files. Runs of click models lie in `runs/`, those of language models in `language/`.
"""

import hashlib
import json
import platform
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
from pydantic import ValidationError
from safetensors.numpy import save_file

from dare_core.config import RunConfig, Strict, explain
from dare_core.errors import InputError
from dare_core.files import (
    atomic_folder,
    canonical_json,
    locked,
    remove_folder,
    sha256_of,
    short_hash,
    store_root,
    write_json,
)
from dare_core.schedule import computing

RECORD = "run.json"
R = TypeVar("R")


def environment() -> dict[str, Any]:
    """Versions and machine, which are stored with every result."""
    import torch  # here, because nothing else in this module needs it

    return {
        "python": platform.python_version(),
        "torch": version("torch").partition("+")[0],
        "machine": platform.machine(),
        "processor": processor(),
        "threads": torch.get_num_threads(),
    }


def processor() -> str:
    """The processor's name, as the system gives it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def run_key(settings: Mapping[str, Any], fingerprint: str, code: str, circumstances: Mapping[str, str | int]) -> str:
    """Content hash of a run.

    Parameters
    ----------
    settings : the configuration, without names that change nothing
    fingerprint : content hash of the log or text
    code : hash of the code that computes it (`dare_core.training.code_hash`)
    circumstances : the parts of the environment that its numbers depend on
    """
    return short_hash(canonical_json([fingerprint, dict(settings), {"code": code, **circumstances}]))


class RunRecord(Strict, ABC):
    """The content of `run.json`; each kind of run adds its own fields."""

    FILES: ClassVar[tuple[str, ...]]

    key: str
    code: str  # hash of the code that computed it
    environment: dict[str, str | int]
    created: str
    seconds: float
    sha256: dict[str, str]  # of every other file, and of the rest of this one

    @abstractmethod
    def computed_key(self) -> str:
        """The key that follows from the content."""

    @classmethod
    def read(cls, folder: Path, whole: bool = True) -> Self:
        """The verified record of a run's folder; `whole`: the other files are verified too.

        Raises InputError where anything is missing or was changed.
        """
        try:
            content = json.loads((folder / RECORD).read_text("utf-8"))
            record = cls.model_validate(content)
            hashes = {name: sha256_of(folder / name) if whole else record.sha256[name] for name in cls.FILES}
            if record.sha256 != with_own_hash(content, hashes):
                raise ValueError("a file is not what was stored")
            if not record.key == record.computed_key() == folder.name:
                raise ValueError("it is another run")
            return record
        except (OSError, ValueError, KeyError) as error:
            reason = explain(error, RECORD) if isinstance(error, ValidationError) else error
            raise InputError(f"Run {folder.name} is missing or damaged ({reason}): remove {folder}.") from error


def with_own_hash(content: Mapping[str, Any], hashes: Mapping[str, str]) -> dict[str, str]:
    """The hashes of a run's other files, and with them that of `run.json`, which covers its content and theirs."""
    rest = {name: value for name, value in content.items() if name != "sha256"}
    own = hashlib.sha256(canonical_json([rest, dict(hashes)]).encode()).hexdigest()
    return {**hashes, RECORD: own}


def write_record(folder: Path, content: Mapping[str, Any], files: tuple[str, ...]) -> None:
    """Write `run.json`, with the hashes of the files that are in the folder already."""
    plain = json.loads(json.dumps(content))  # as it will be read
    hashes = {name: sha256_of(folder / name) for name in files}
    write_json(folder / RECORD, plain | {"sha256": with_own_hash(plain, hashes)})


@dataclass(frozen=True)
class Payload:
    """What is stored of a finished run: the part of `run.json` that is its own, and arrays by file and name."""

    content: Mapping[str, Any]
    files: Mapping[str, Mapping[str, np.ndarray]]


class Store:
    """Base of the stores: gives runs, computes what is missing, and counts both."""

    def __init__(self, progress: bool = True) -> None:
        self.progress = progress
        self.computed = 0
        self._own: set[str] = set()  # keys of what was computed
        self._given: set[str] = set()

    @property
    def reused(self) -> int:
        """Runs that were stored already, each counted once."""
        return len(self._given - self._own)

    def _count(self, key: str) -> None:
        self.computed += 1
        self._own.add(key)

    def _stored(self, folder: Path, read: Callable[[Path], R], compute: Callable[[], Payload]) -> tuple[R, bool]:
        """A run, and whether it was computed now. What is damaged is computed again.

        One process or thread at a time computes it; others wait and read it.
        """
        self._given.add(folder.name)
        with locked(folder):
            if folder.is_dir():
                try:
                    return read(folder), False
                except InputError:
                    remove_folder(folder)
            with computing():
                payload = compute()
            with atomic_folder(folder) as temporary:
                for name, arrays in payload.files.items():
                    save_file(dict(arrays), temporary / name)
                created = datetime.now(UTC).isoformat(timespec="seconds")
                content = {"key": folder.name, "created": created, **payload.content}
                write_record(temporary, content, tuple(payload.files))
        self._count(folder.name)
        return read(folder), True


@dataclass(frozen=True)
class Validation:
    """One line of a run's history."""

    step: int
    samples: int
    train_loss: float  # mean since the last validation, auxiliary loss included
    auc: float
    accuracy: float
    logloss: float


class ClickRecord(RunRecord):
    """`run.json` of a click model."""

    FILES = ("weights.safetensors", "arrays.safetensors")

    config: RunConfig
    log: dict[str, str]
    batch_samples: int  # per step, as `batch_size` or the recipe says
    history: list[Validation]
    best: Validation
    gradient_fields: list[str]
    parameters: int
    samples_per_second: float

    def computed_key(self) -> str:
        """The key that follows from the content."""
        circumstances = click_circumstances(self.environment, self.batch_samples)
        return click_key(self.config, self.log["fingerprint"], self.code, circumstances)


def click_circumstances(environment: Mapping[str, str | int], batch: int) -> dict[str, str | int]:
    """The parts of the environment, and the samples per step, that the numbers of a click run depend on."""
    device = str(environment["device"]).partition(":")[0]
    return {"device": device, "threads": environment["threads"], "torch": environment["torch"], "batch_samples": batch}


def click_key(config: RunConfig, fingerprint: str, code: str, circumstances: Mapping[str, str | int]) -> str:
    """Content hash of a click run. The log's name is left out: the same content under another name is the same run."""
    return run_key(config.model_dump(mode="json", exclude={"log"}), fingerprint, code, circumstances)


def runs_root() -> Path:
    """Folder of all click runs."""
    return store_root() / "runs"


def runs_and_damaged() -> tuple[list[ClickRecord], list[str]]:
    """The records of all stored click runs, oldest first, and the keys of those whose `run.json` is damaged.

    Only `run.json` is verified here; a run's arrays are verified when they are read.
    """
    found, damaged = [], []
    for folder in sorted(runs_root().glob("[0-9a-f]*")):
        try:
            found.append(ClickRecord.read(folder, whole=False))
        except InputError:
            damaged.append(folder.name)
    return sorted(found, key=lambda record: record.created), damaged


def list_runs() -> list[ClickRecord]:
    """The records of all stored click runs that are not damaged, oldest first."""
    return runs_and_damaged()[0]


def find_run(prefix: str) -> str:
    """The full key of a click run by the start of it. Raises InputError when none or several match."""
    keys = [folder.name for folder in runs_root().glob("[0-9a-f]*") if folder.name.startswith(prefix)]
    if len(keys) != 1:
        what = "No stored run" if not keys else f"{len(keys)} stored runs"
        raise InputError(f"{what} with a key that starts with {prefix!r}: `dare runs list` shows all.")
    return keys[0]


def remove_run(prefix: str) -> str:
    """Remove a click run by the start of its key; returns the key."""
    key = find_run(prefix)
    remove_folder(runs_root() / key)
    return key
