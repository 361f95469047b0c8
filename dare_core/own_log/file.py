"""The file of a log of one's own: under which name and with which options it is prepared."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import polars as pl

from dare_core.data.generated import WorldConfig, generate
from dare_core.data.logs import COMPLETE_JOURNEY, Log, load, prepare
from dare_core.errors import InputError
from dare_core.files import atomic_path, canonical_json, short_hash, store_root
from dare_core.studies.settings import YourOwnLogConfig as Config

AUTO = "auto"
T = TypeVar("T")


def demonstration_file(config: Config) -> Path:
    """Write a generated world as a CSV file with column names of its own."""
    log = generate(WorldConfig(users=config.world_users, world_seed=config.world_seed + 100))
    path = store_root() / "demonstration" / f"{log.fingerprint[:12]}.csv"
    if not path.exists():
        users = np.repeat(np.arange(len(log.offsets) - 1), np.diff(log.offsets))
        frame = pl.DataFrame({"visitor": users, "page": log.items, "section": log.categories})
        frame = frame.with_columns(visitor=pl.format("v{}", "visitor"), page=pl.format("p{}", "page"))
        with atomic_path(path) as temporary:
            frame.write_csv(temporary)
    return path


def reader_options(config: Config) -> dict[str, Any]:
    """What the reader of tables is asked for, as its own options."""
    names = ("user", "item", "category", "time", "behaviour", "group", "since", "until")
    given = {name: getattr(config, name) for name in names if getattr(config, name)}
    if kept := tuple(value.strip() for value in config.keep.split(",") if value.strip()):
        given["keep"] = kept
    if config.clicked:
        given["label"] = config.clicked
    return given | from_json(config.reading or "{}", dict, "reading")


def paths_of(config: Config) -> list[str]:
    """The files that are read: one, or a JSON list of several."""
    return from_json(config.path, list, "path") if config.path.startswith("[") else [config.path]


def from_json(text: str, kind: type[T], name: str) -> T:
    """A parameter that is written as JSON. Raises InputError where it is not, or of another kind."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise InputError(f"{name}: {text!r} is not JSON ({error}).") from error
    if not isinstance(value, kind):
        raise InputError(f"{name}: {text!r} is not a JSON {'object' if kind is dict else 'list'}.")
    return value


def name_of(config: Config, options: Mapping[str, Any]) -> str:
    """The name of the log: as asked for, else the file's with a hash of place and options, so that two studies at once
    keep their logs apart."""
    if config.logs != AUTO:
        return config.logs
    paths = paths_of(config)
    place = [path if path == "-" else str(Path(path).expanduser().resolve()) for path in paths]
    letters = (letter if letter.isalnum() and letter.isascii() else "-" for letter in Path(paths[0]).stem)
    stem = "".join(letters).strip("-")[:40] or "log"
    return f"{stem}-{short_hash(canonical_json([place, dict(options), config.on_bad_rows]))[:8]}"


def prepare_file(config: Config) -> Log:
    """The log that is asked for: of a file, which is prepared; without one, the prepared log of that name; without
    either, Complete Journey, or a generated world where `world_users` says of how many users.

    Raises InputError for several names, and for a file that cannot be read.
    """
    if len(config.log_names) != 1:
        raise InputError("logs: this chapter takes the name of one log, under which the file is stored.")
    if not config.path and (config.logs != AUTO or not config.world_users):
        return load(COMPLETE_JOURNEY if config.logs == AUTO else config.logs)
    options = reader_options(config)
    if not config.path:
        file = demonstration_file(config)
        config = config.model_copy(update={"path": str(file), "logs": f"demonstration-{file.stem}"})
        options = {"user": "visitor", "item": "page", "category": "section"}
    return prepare("table", paths_of(config), name=name_of(config, options), on_bad_rows=config.on_bad_rows, **options)
