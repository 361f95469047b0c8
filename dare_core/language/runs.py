"""Finished language runs by content hash, as click runs are kept: computed once, verified when read.

Layout: `language/<key>/` with `run.json` and `losses.safetensors` (the loss of each validation stretch). Weights
are not kept: nothing asks for them.
"""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from dare_core.errors import InputError
from dare_core.files import atomic_folder, canonical_json, locked, remove_folder, short_hash, store_root
from dare_core.language.gpt import LanguageModel, parameter_counts
from dare_core.language.text import Text
from dare_core.language.training import Evaluation, LanguageRunConfig, LanguageTrained, train_language
from dare_core.schedule import computing
from dare_core.training.code_hash import EXCLUDED, code_hash
from dare_core.training.run_files import RunRecord, write_record
from dare_core.training.runs import environment

FILES = ("losses.safetensors",)
CODE = (train_language.__module__, LanguageModel.__module__)
"""Modules that compute a run, with all that they import."""
COVERED = EXCLUDED | {"config", "text"}
"""Parts of the names of modules whose work is hashed in the key: settings and text."""


@dataclass(frozen=True)
class LanguageRun:
    """A finished run."""

    key: str
    config: LanguageRunConfig
    history: list[Evaluation]
    losses: np.ndarray  # (W,) validation loss of each stretch, nats a character
    flat: bool | None  # whether the loss was flat before the final decay; None where the schedule does not ask
    parameters: dict[str, int]
    seconds: float

    @property
    def loss(self) -> float:
        """Validation loss, nats a character."""
        return float(self.losses.mean())


def language_key(config: LanguageRunConfig, fingerprint: str, device: str, torch: str, code: str = "") -> str:
    """Content hash of a run: configuration, text, code (the present one if not told), device and torch's version."""
    code = code or code_hash(CODE, COVERED)
    return short_hash(
        canonical_json([code, fingerprint, config.model_dump(mode="json"), device.partition(":")[0], torch])
    )


class _Record(RunRecord):
    """`run.json`."""

    config: LanguageRunConfig
    text: dict[str, str]
    history: list[Evaluation]
    flat: bool | None
    parameters: dict[str, int]

    def computed_key(self) -> str:
        """The key by the content."""
        device, torch = (str(self.environment[name]) for name in ("device", "torch"))
        return language_key(self.config, self.text["fingerprint"], device, torch, self.code)


def read_language_run(folder: Path) -> LanguageRun:
    """Read a stored run and verify it. Raises InputError when it is missing or damaged."""
    record = _Record.read(folder, FILES)
    losses = load_file(folder / FILES[0])["losses"]
    return LanguageRun(
        folder.name, record.config, record.history, losses, record.flat, record.parameters, record.seconds
    )


class LanguageStore:
    """Gives language runs, computing what is missing."""

    def __init__(self, progress: bool = True) -> None:
        self.progress = progress
        self.computed = 0
        self.reused = 0

    def get(self, config: LanguageRunConfig, text: Text, device: str = "cpu") -> LanguageRun:
        """The run of a configuration: read where it is stored, computed and stored where not."""
        circumstances = environment() | {"device": device, "threads": 1}  # as `train_language` has it
        key = language_key(config, text.fingerprint, device, circumstances["torch"])
        folder = store_root() / "language" / key
        with locked(folder):
            if folder.is_dir():
                try:
                    run = read_language_run(folder)
                except InputError:  # damaged: what cannot be verified is computed again
                    remove_folder(folder)
                else:
                    self.reused += 1
                    return run
            with computing():
                trained = train_language(config, text, device, self.progress)
            _keep(folder, config, text, trained, circumstances)
        self.computed += 1
        return read_language_run(folder)


def _keep(
    folder: Path,
    config: LanguageRunConfig,
    text: Text,
    trained: LanguageTrained,
    circumstances: dict[str, str | int],
) -> None:
    """Store a run."""
    content = {
        "key": folder.name,
        "code": code_hash(CODE, COVERED),
        "config": config.model_dump(mode="json"),
        "text": {"name": text.name, "fingerprint": text.fingerprint},
        "history": [asdict(line) for line in trained.history],
        "flat": trained.flat,
        "parameters": parameter_counts(trained.model),
        "seconds": round(trained.seconds, 3),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "environment": circumstances,
    }
    with atomic_folder(folder) as temporary:
        save_file({"losses": trained.losses}, temporary / FILES[0])
        write_record(temporary, content, FILES)
