"""Your own log: prepare a file, and say whether decoupled embeddings pay on it."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from dare_core.data.generated import WorldConfig, generate
from dare_core.data.logs import Log, prepare
from dare_core.errors import InputError
from dare_core.evaluation.intervals import Interval
from dare_core.files import atomic_path, store_root
from dare_core.studies import settings
from dare_core.studies.experiment import Competence

PAYS = 0.001
"""A gain in AUC of one per mille is what the field calls worth having (paper, section 4.2)."""

Config = settings.YourOwnLogConfig


def demonstration_file(config: Config) -> Path:
    """Write a generated world as a CSV file with column names of its own, so that the chapter runs without a file."""
    log = generate(WorldConfig(users=config.world_users, world_seed=config.world_seed + 100))
    path = store_root() / "demonstration" / f"{log.fingerprint[:12]}.csv"
    if not path.exists():
        users = np.repeat(np.arange(len(log.offsets) - 1), np.diff(log.offsets))
        frame = pl.DataFrame({"visitor": users, "page": log.items, "section": log.categories})
        frame = frame.with_columns(visitor=pl.format("v{}", "visitor"), page=pl.format("p{}", "page"))
        with atomic_path(path) as temporary:
            frame.write_csv(temporary)
    return path


def prepare_file(config: Config) -> Log:
    """Prepare the log of the file that is asked for, or of the demonstration file.

    Raises InputError for several names, for models without DARE and TWIN, and for a file that is missing or cannot
    be read.
    """
    if not {"DARE", "TWIN"} <= set(config.model_names):
        raise InputError("models: the comparison needs DARE and TWIN among the models.")
    if len(config.log_names) != 1:
        raise InputError("logs: this chapter takes the name of one log, under which the file is stored.")
    if config.path:
        name = config.log_names[0]
        columns: dict[str, Any] = {
            "user": config.user_column,
            "item": config.item_column,
            "category": config.category_column or None,
            "time": config.time_column or None,
            "behaviour": config.behaviour_column or None,
            "keep": tuple(value.strip() for value in config.keep.split(",") if value.strip()),
        }
        path = Path(config.path).expanduser()
    else:
        name = "demonstration"
        columns = {"user": "visitor", "item": "page", "category": "section"}
        path = demonstration_file(config)
    if not path.is_file():
        raise InputError(f"path: there is no file {str(path)!r}: give the path of a CSV, TSV or Parquet file.")
    return prepare("table", path, name=name, on_bad_rows=config.on_bad_rows, **columns)


def answer(gain: Interval, competence: Competence) -> str:
    """Say in one sentence whether decoupling pays on a log, from the AUC of DARE minus that of TWIN.

    Models that have not learned give no answer.
    """
    if competence.not_learned:
        verdict = f"cannot tell, {competence.not_learned}"
    elif gain.low > 0:
        size = "worth having" if gain.estimate >= PAYS else "small"
        verdict = f"yes, DARE's AUC is above TWIN's by a margin that is {size}"
    elif gain.high < 0:
        verdict = "no, TWIN's AUC is above DARE's"
    elif gain.high < PAYS:
        verdict = "no, a gain of one per mille is excluded"
    else:
        verdict = "undecided, the log is too small to tell"
    return (
        f"Does decoupling pay here? {verdict}: DARE minus TWIN {gain} (this size detects {gain.detectable:.4f}); "
        f"competence {competence.value:.2f}, best rule without learning: {competence.rule}."
    )
