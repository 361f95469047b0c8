"""Projections in recommendation: claims P1 and P2 (paper, section 2.3, figure 4c and appendix C)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import yaml
from pydantic import Field

from dare_core.claims import project_root
from dare_core.errors import InputError
from dare_core.intervals import Draws, Interval, Resamples, best_of, difference_interval, mean_interval
from dare_core.map_motion import map_motion
from dare_core.model_table import MODELS
from dare_core.runs import Run, RunStore
from dare_core.studies.common import Experiment, Record, StudyConfig
from dare_core.studies.overall import size_note
from dare_core.studies.projection_cost import cost_rows
from dare_core.studies.projection_settings import Setting, chosen, has_maps, run_of, search, stored_search
from dare_core.studies.scores import auc_table

TWIN, PROJECTION, DARE = "TWIN", "TWIN (w/ proj.)", "DARE"
VARIANTS = tuple(name for name, spec in MODELS.items() if spec.maps is not None or spec.equalised)
"""Every way to decouple a shared table, TWIN (w/ proj.) among them."""
SHARED, BEST = "shared", "best"
Settings = Mapping[tuple[str, str], Setting]
"""The setting of each model, shared and best."""


class Config(StudyConfig):
    """Parameters of the Projections chapter."""

    size: int = Field(16, ge=1, le=512, description="embedding size a field")
    models: str = Field("DARE,TWIN,TWIN (w/ proj.)", description="models to train, or all; these three always")
    search: bool = Field(False, description="search every model's best setting; otherwise take the stored search's")

    @property
    def model_names(self) -> list[str]:
        """The models asked for; `all` is DARE, TWIN and every variant."""
        return [DARE, TWIN, *VARIANTS] if self.models == "all" else self.models.split(",")


@dataclass
class Result:
    """Everything that the chapter shows."""

    config: Config
    record: Record


def settings_of(experiment: Experiment, lines: list[dict[str, Any]]) -> dict[tuple[str, str], Setting]:
    """The shared setting, and the one that the search `lines` chose (where none did, the shared one)."""
    settings = {}
    for model in experiment.config.model_names:
        settings[SHARED, model] = Setting(experiment.config.learning_rate)
        settings[BEST, model] = chosen(lines, experiment.name, model) or settings[SHARED, model]
    return settings


def numbers(interval: Interval, prefix: str) -> dict[str, float]:
    """An interval as three columns."""
    return {prefix: interval.estimate, f"{prefix}, low": interval.low, f"{prefix}, high": interval.high}


def variant_rows(
    experiment: Experiment,
    settings: Settings,
    runs: Mapping[tuple[str, str], list[Run]],
    resamples: Mapping[str, Resamples],
    draws: Draws,
) -> list[dict[str, Any]]:
    """Test AUC of every model at both settings, and its paired difference from TWIN at the same one."""
    rows = []
    for (at, model), own in runs.items():
        values, reference = resamples[f"{at} {model}"], resamples[f"{at} {TWIN}"]
        setting = settings[at, model]
        difference = None if model == TWIN else difference_interval(values, reference, draws)
        rows.append(
            {
                "log": experiment.name,
                "setting": at,
                "model": model,
                "learning rate": setting.learning_rate,
                "initial values of maps": setting.map_initial if has_maps(model) else None,
                "validation AUC": float(np.mean([run.best.auc for run in own])),
                **numbers(mean_interval(values, draws), "AUC"),
                **({} if difference is None else numbers(difference, "minus TWIN")),
                **({} if difference is None else {"detectable": difference.detectable}),
            }
        )
    columns = list(dict.fromkeys(column for row in rows for column in row))
    return [{column: row.get(column) for column in columns} for row in rows]


def judge(
    record: Record,
    experiment: Experiment,
    settings: Settings,
    resamples: Mapping[str, Resamples],
    draws: Draws,
    searched: bool,
) -> None:
    """Add the ledger rows of P1, and of P2 where every variant was trained.

    Where no search was made on the log, its best setting is not known, and what is claimed of it not judged.
    """
    unknown = "no search on this log (search=True)"
    size = size_note(record.config)
    for at, suffix in ((SHARED, ""), (BEST, "_best")):
        difference = difference_interval(resamples[f"{at} {TWIN}"], resamples[f"{at} {PROJECTION}"], draws)
        where = "; ".join(settings[at, model].describe(model) for model in (TWIN, PROJECTION))
        known = at == SHARED or searched
        note = f"{where}{size}" if known else unknown
        record.judge("P1", f"twin_minus_projection{suffix}", difference if known else None, experiment, note)
    if not set(VARIANTS) <= set(record.config.model_names):
        return
    for at, suffix in ((SHARED, ""), (BEST, "_best")):
        best = best_of([resamples[f"{at} {model}"] for model in VARIANTS], draws)
        difference = difference_interval(best, resamples[f"{at} {TWIN}"], draws)
        first = max(VARIANTS, key=lambda model: float(resamples[f"{at} {model}"][0].mean()))
        note = f"best of {len(VARIANTS)} chosen anew in each resample; over all users: {first}{size}"
        known = at == SHARED or searched
        record.judge(
            "P2",
            f"best_variant_minus_twin{suffix}",
            difference if known else None,
            experiment,
            note if known else unknown,
        )


def budget_rows(
    experiment: Experiment, runs: Mapping[str, list[Run]], resamples: Mapping[str, Resamples], draws: Draws
) -> list[dict[str, Any]]:
    """TWIN, TWIN with tables twice as wide, and DARE, at the shared setting."""
    rows = []
    for name, own in runs.items():
        model = own[0].model(experiment.log)
        difference = None if name == DARE else difference_interval(resamples[DARE], resamples[name], draws)
        rows.append(
            {
                "log": experiment.name,
                "model": name,
                "size a field": own[0].config.model.size,
                "parameters in tables": sum(table.numel() for table in model.embedding_parameters()),
                "parameters elsewhere": sum(weight.numel() for weight in model.dense_parameters()),
                **numbers(mean_interval(resamples[name], draws), "AUC"),
                f"{DARE} minus it": None if difference is None else difference.estimate,
                "difference 95 %": "" if difference is None else f"[{difference.low:.4f}, {difference.high:.4f}]",
                "detectable": None if difference is None else difference.detectable,
            }
        )
    return rows


def motion_rows(experiment: Experiment, settings: Settings) -> list[dict[str, Any]]:
    """How the maps of TWIN (w/ proj.) move with seed 1, at the shared and at its best setting."""
    rows = []
    for at in (SHARED, BEST):
        setting = settings[at, PROJECTION]
        config = experiment.run_config(
            PROJECTION, 1, learning_rate=setting.learning_rate, map_initial=setting.map_initial
        )
        label = {"log": experiment.name, "setting": at, "described": setting.describe(PROJECTION)}
        rows += [label | line for line in map_motion(experiment.store, config)]
    return rows


def capacity_rows(experiments: list[Experiment]) -> list[dict[str, Any]]:
    """Parameters of a map beside the ids that it serves: quoted ones, and those of the logs of this chapter."""
    rows = yaml.safe_load((project_root() / "book" / "map_capacity.yml").read_text("utf-8"))
    for experiment in experiments:
        for what, ids in (("items", experiment.log.card.items), ("categories", experiment.log.card.categories)):
            rows.append(
                {
                    "where": f"{experiment.name}, {what}",
                    "kind": "recommendation",
                    "size": experiment.config.size,
                    "ids": ids,
                    "source": "computed here",
                }
            )
    return [
        {**row, "parameters of a map": row["size"] ** 2, "parameters an id": row["size"] ** 2 / row["ids"]}
        for row in rows
    ]


def check(config: Config) -> None:
    """Refuse a choice of models that the chapter cannot compare."""
    missing = [model for model in (DARE, TWIN, PROJECTION) if model not in config.model_names]
    if missing:
        raise InputError(f"models: this chapter compares with {', '.join(missing)}: add it, or leave models out.")


def run(config: Config) -> Result:
    """Train the models at the shared setting and at their best, and judge P1 and P2."""
    check(config)
    record = Record("projections", config, RunStore())
    record.tables = {name: [] for name in ("variants", "search", "cost", "budget", "motion", "capacity")}
    experiments = []
    for name in config.log_names:
        experiment = record.use(name)
        experiments.append(experiment)
        lines = [line for m in config.model_names for line in search(experiment, m)] if config.search else None
        tried = stored_search() if lines is None else lines
        settings = settings_of(experiment, tried)
        runs = {
            (at, model): [run_of(experiment, model, setting, seed) for seed in experiment.seeds]
            for (at, model), setting in settings.items()
        }
        wide = f"{TWIN}, twice as wide"
        same_budget = {
            TWIN: runs[SHARED, TWIN],
            wide: [
                run_of(experiment, TWIN, settings[SHARED, TWIN], seed, size=2 * config.size)
                for seed in experiment.seeds
            ],
            DARE: runs[SHARED, DARE],
        }
        every = {f"{at} {model}": own for (at, model), own in runs.items()} | {wide: same_budget[wide]}
        resamples, draws = auc_table(
            experiment, {key: [run.test_probability for run in own] for key, own in every.items()}
        )
        judge(record, experiment, settings, resamples, draws, chosen(tried, experiment.name, TWIN) is not None)
        budget = {name: resamples[wide if name == wide else f"{SHARED} {name}"] for name in same_budget}
        record.tables["variants"] += variant_rows(experiment, settings, runs, resamples, draws)
        record.tables["search"] += lines or []
        record.tables["cost"] += cost_rows(experiment, config.model_names)
        record.tables["budget"] += budget_rows(experiment, same_budget, budget, draws)
        record.tables["motion"] += motion_rows(experiment, settings)
    record.tables["capacity"] = capacity_rows(experiments)
    if not config.search:
        del record.tables["search"]
    record.write()
    return Result(config, record)
