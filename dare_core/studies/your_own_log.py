"""Your own log: does decoupling pay on it?"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from dare_core.data.generated import WorldConfig, generate
from dare_core.data.logs import Log, prepare
from dare_core.errors import InputError
from dare_core.evaluation.intervals import Interval, interval
from dare_core.files import atomic_path, store_root
from dare_core.report.show import Shown, table
from dare_core.studies import settings
from dare_core.studies.experiment import Experiment, Record
from dare_core.studies.scores import auc_table, score_rows
from dare_core.training.runs import RunStore

PAYS = 0.001
"""A gain in AUC of one per mille is what the field calls worth having (paper, section 4.2)."""

Config = settings.YourOwnLogConfig


@dataclass
class Result:
    """Everything that the chapter shows."""

    record: Record
    experiment: Experiment
    demonstration: bool
    gain: Interval


def demonstration_file(config: Config) -> Path:
    """A CSV of a generated world under foreign column names, so that the chapter runs without a file."""
    log = generate(WorldConfig(users=config.world_users, world_seed=config.world_seed + 100))
    path = store_root() / "demonstration" / f"{log.fingerprint[:12]}.csv"
    if not path.exists():
        users = np.repeat(np.arange(len(log.offsets) - 1), np.diff(log.offsets))
        frame = pl.DataFrame({"visitor": users, "page": log.items, "section": log.categories})
        frame = frame.with_columns(visitor=pl.format("v{}", "visitor"), page=pl.format("p{}", "page"))
        with atomic_path(path) as temporary:
            frame.write_csv(temporary)
    return path


def own_log(config: Config) -> tuple[Log, bool]:
    """Prepare the file's log; true when it is the demonstration."""
    name = config.log_names[0]
    if len(config.log_names) != 1:
        raise InputError("logs: this chapter takes the name of one log, under which the file is stored.")
    if config.path:
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
        columns = {"user": "visitor", "item": "page", "category": "section"}
        path = demonstration_file(config)
        name = "demonstration"
    if not path.is_file():
        raise InputError(f"path: there is no file {str(path)!r}: give the path of a CSV, TSV or Parquet file.")
    return prepare("table", path, name=name, on_bad_rows=config.on_bad_rows, **columns), not config.path


def run(config: Config) -> Result:
    """Prepare the log, train the models on it, and say whether decoupling pays there."""
    if not {"DARE", "TWIN"} <= set(config.model_names):
        raise InputError("models: the comparison needs DARE and TWIN among the models.")
    log, demonstration = own_log(config)
    record = Record("your_own_log", config, RunStore())
    experiment = record.use(log.card.name)
    experiment.train(config.model_names)
    scores = {m: experiment.test_scores(m) for m in config.model_names} | experiment.rule_scores()
    everything = auc_table(experiment, scores)
    record.tables["scores"] = score_rows(experiment, scores, everything)
    gain = interval(everything["DARE"] - everything["TWIN"])
    record.tables["log"] = [{"field": k, "value": str(v)} for k, v in log.card.model_dump().items()]
    record.write()
    return Result(record, experiment, demonstration, gain)


def answer(result: Result) -> str:
    """One sentence: does decoupling pay on this log? Nothing is said of models that have not learned."""
    gain, competence = result.gain, result.experiment.competence
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


def show_card(result: Result) -> Shown:
    """The data card."""
    return table(result.record.tables["log"], "Data card of the log")


def show_scores(result: Result) -> Shown:
    """Test scores of models and rules."""
    return table(result.record.tables["scores"], "Test scores of models and of rules without learning")
