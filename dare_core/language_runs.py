"""Finished language runs by content hash, as click runs are kept: computed once, verified when read.

Layout: `language/<key>/` with `run.json` and `losses.safetensors` (the loss of each validation stretch). Weights
are not kept: nothing asks for them.
"""

import json
import shutil
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from dare_core.errors import InputError
from dare_core.files import atomic_folder, canonical_json, sha256_of, short_hash, store_root, write_json
from dare_core.language import parameter_counts
from dare_core.language_training import Evaluation, LanguageRunConfig, train_language
from dare_core.runs import environment
from dare_core.schedule import computing
from dare_core.texts import Text

LANGUAGE_VERSION = 2
"""Raised whenever the code computes something else from the same configuration: old runs are not reused."""
LOSSES = "losses.safetensors"


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


def language_key(config: LanguageRunConfig, text: Text) -> str:
    """Content hash of a run: configuration, text and version of what is computed."""
    return short_hash(canonical_json([LANGUAGE_VERSION, text.fingerprint, config.model_dump(mode="json")]))


def read_language_run(folder: Path) -> LanguageRun:
    """Read a stored run and verify it. Raises InputError when it is missing or damaged."""
    try:
        stored = json.loads((folder / "run.json").read_text("utf-8"))
        if sha256_of(folder / LOSSES) != stored["sha256"]:
            raise InputError(f"Language run {folder.name}: {LOSSES} is not what was stored; remove {folder}.")
        return LanguageRun(
            folder.name,
            LanguageRunConfig.model_validate(stored["config"]),
            [Evaluation(**line) for line in stored["history"]],
            load_file(folder / LOSSES)["losses"],
            stored["flat"],
            stored["parameters"],
            stored["seconds"],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"Language run {folder.name} is missing or damaged ({error}); remove {folder}.") from error


class LanguageStore:
    """Gives language runs, computing what is missing."""

    def __init__(self, progress: bool = True) -> None:
        self.progress = progress
        self.computed = 0
        self.reused = 0

    def get(self, config: LanguageRunConfig, text: Text, device: str = "cpu") -> LanguageRun:
        """The run of a configuration: read where it is stored, computed and stored where not."""
        folder = store_root() / "language" / language_key(config, text)
        if folder.is_dir():
            try:
                run = read_language_run(folder)
            except InputError:  # damaged: what cannot be verified is computed again
                shutil.rmtree(folder)
            else:
                self.reused += 1
                return run
        with computing():
            trained = train_language(config, text, device, self.progress)
        with atomic_folder(folder) as temporary:
            save_file({"losses": trained.losses}, temporary / LOSSES)
            write_json(
                temporary / "run.json",
                {
                    "key": folder.name,
                    "language_version": LANGUAGE_VERSION,
                    "config": config.model_dump(mode="json"),
                    "text": {"name": text.name, "fingerprint": text.fingerprint},
                    "history": [asdict(line) for line in trained.history],
                    "flat": trained.flat,
                    "parameters": parameter_counts(trained.model),
                    "seconds": round(trained.seconds, 3),
                    "created": datetime.now(UTC).isoformat(timespec="seconds"),
                    "device": device,
                    "environment": environment(),
                    "sha256": sha256_of(temporary / LOSSES),
                },
            )
        self.computed += 1
        return read_language_run(folder)
