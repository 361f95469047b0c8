"""Runs of language models, in the same store as those of click models (`dare_core.training.store`).

A run keeps the loss of each validation stretch, `losses.safetensors`. Weights are not kept: nothing asks for them.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from dare_core.files import store_root
from dare_core.language.gpt import LanguageModel, parameter_counts
from dare_core.language.text import Text
from dare_core.language.training import Evaluation, LanguageRunConfig, train_language
from dare_core.training.code_hash import EXCLUDED, code_hash
from dare_core.training.store import Payload, RunRecord, Store, environment, run_key

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
    losses: np.ndarray  # (W,) validation loss of each stretch, nats per character
    flat: bool | None  # whether the loss was flat before the final decay; None where the schedule does not ask
    parameters: dict[str, int]
    seconds: float

    @property
    def loss(self) -> float:
        """Validation loss, nats per character."""
        return float(self.losses.mean())


class LanguageRecord(RunRecord):
    """`run.json` of a language model."""

    FILES = ("losses.safetensors",)

    config: LanguageRunConfig
    text: dict[str, str]
    history: list[Evaluation]
    flat: bool | None
    parameters: dict[str, int]

    def computed_key(self) -> str:
        """The key that follows from the content."""
        return language_key(self.config, self.text["fingerprint"], self.code, str(self.environment["torch"]))


def language_key(config: LanguageRunConfig, fingerprint: str, code: str, torch: str) -> str:
    """Content hash of a run: configuration, text, code and torch's version."""
    return run_key(config.model_dump(mode="json"), fingerprint, code, {"torch": torch})


def read_language_run(folder: Path) -> LanguageRun:
    """Read a stored run and verify it. Raises InputError when it is missing or damaged."""
    r, losses = LanguageRecord.read(folder), load_file(folder / LanguageRecord.FILES[0])["losses"]
    return LanguageRun(r.key, r.config, r.history, losses, r.flat, r.parameters, r.seconds)


class LanguageStore(Store):
    """Gives language runs, training what is missing."""

    def get(self, config: LanguageRunConfig, text: Text) -> LanguageRun:
        """The run of a configuration: read where it is stored, trained and stored where not."""
        key = language_key(config, text.fingerprint, code_hash(CODE, COVERED), environment()["torch"])
        return self._stored(
            store_root() / "language" / key, read_language_run, lambda: language_payload(config, text, self.progress)
        )[0]


def language_payload(config: LanguageRunConfig, text: Text, progress: bool) -> Payload:
    """Train a language model; what is stored of it."""
    trained = train_language(config, text, progress)
    content = {
        "code": code_hash(CODE, COVERED),
        "config": config.model_dump(mode="json"),
        "text": {"name": text.name, "fingerprint": text.fingerprint},
        "history": [asdict(line) for line in trained.history],
        "flat": trained.flat,
        "parameters": parameter_counts(trained.model),
        "seconds": round(trained.seconds, 3),
        "environment": environment() | {"threads": 1},  # as `train_language` sets them
    }
    return Payload(content, {LanguageRecord.FILES[0]: {"losses": trained.losses}})
