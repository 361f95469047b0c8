"""What stored runs of every kind have in common: `run.json`, with the hashes of all files and of itself."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import ValidationError

from dare_core.config import Strict, explain
from dare_core.errors import InputError
from dare_core.files import canonical_json, sha256_of, write_json

RECORD = "run.json"


class RunRecord(Strict, ABC):
    """The content of `run.json`; each kind of run adds its own."""

    key: str
    code: str  # hash of the code that computed it
    environment: dict[str, str | int]
    created: str
    seconds: float
    sha256: dict[str, str]  # of every other file, and of the rest of this one

    @abstractmethod
    def computed_key(self) -> str:
        """The key by the content."""

    @classmethod
    def read(cls, folder: Path, files: Sequence[str]) -> Self:
        """The verified record of a run's folder. Raises InputError where anything is missing or was changed."""
        try:
            content = json.loads((folder / RECORD).read_text("utf-8"))
            record = cls.model_validate(content)
            if record.sha256 != _hashes(folder, content, files):
                raise ValueError("a file is not what was stored")
            if not record.key == record.computed_key() == folder.name:
                raise ValueError("it is another run")
            return record
        except (OSError, ValueError, KeyError) as error:
            reason = explain(error, RECORD) if isinstance(error, ValidationError) else error
            raise InputError(f"Run {folder.name} is missing or damaged ({reason}): remove {folder}.") from error


def _hashes(folder: Path, content: dict[str, Any], files: Sequence[str]) -> dict[str, str]:
    hashes = {name: sha256_of(folder / name) for name in files}
    rest = {name: value for name, value in content.items() if name != "sha256"}
    return hashes | {RECORD: hashlib.sha256(canonical_json([rest, hashes]).encode()).hexdigest()}


def write_record(folder: Path, content: dict[str, Any], files: Sequence[str]) -> None:
    """Write a record, with the hashes of the files that lie in the folder already."""
    content = json.loads(json.dumps(content))  # as it will be read
    write_json(folder / RECORD, content | {"sha256": _hashes(folder, content, files)})
