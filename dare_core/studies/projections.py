"""Projections in recommendation: claims P1 and P2 (paper, section 2.3, figure 4c and appendix C)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import yaml

from dare_core.errors import InputError
from dare_core.evaluation.intervals import Interval, Replicates, interval, none_above
from dare_core.files import project_root
from dare_core.models.zoo import MODELS
from dare_core.report.claims import NOT_COMPUTED
from dare_core.studies import settings
from dare_core.studies.experiment import CLAIMED, REFERENCE, Experiment, Record
from dare_core.studies.map_motion import map_motion
from dare_core.studies.overall import size_note
from dare_core.studies.projection_cost import cost_rows
from dare_core.studies.projection_settings import (
    Lines,
    Setting,
    choices,
    edge_chosen,
    has_maps,
    runs_of,
    search,
    stored_search,
)
from dare_core.studies.scores import auc_table, columns
from dare_core.training.runs import Run, RunStore

TWIN, PROJECTION, DARE = REFERENCE, "TWIN (w/ proj.)", CLAIMED
VARIANTS = tuple(name for name, spec in MODELS.items() if spec.maps is not None or spec.equalised)
"""Every way to decouple a shared table, TWIN (w/ proj.) among them."""
SHARED, BEST = "shared", "best"
WIDE = f"{TWIN}, twice as wide"
Settings = Mapping[tuple[str, str], Setting]
"""The setting of each model, shared and best."""

Config = settings.ProjectionsConfig


@dataclass
class Result:
    """Everything that the chapter shows."""

    config: Config
    record: Record


def settings_of(experiment: Experiment, lines: Lines) -> dict[tuple[str, str], Setting]:
    """The shared setting, and the one that the search `lines` chose (where none did, the shared one)."""
    shared, best = Setting(experiment.config.learning_rate), choices(lines, experiment)
    settings = {}
    for model in experiment.config.model_names:
        settings[SHARED, model] = shared
        settings[BEST, model] = best.get(model, shared)
    return settings


def variant_rows(
    experiment: Experiment,
    settings: Settings,
    runs: Mapping[tuple[str, str], list[Run]],
    replicates: Mapping[str, Replicates],
) -> list[dict[str, Any]]:
    """Test AUC of every model at both settings, and its paired difference from TWIN at the same one."""
    rows = []
    for (at, model), own in runs.items():
        values, setting = replicates[f"{at} {model}"], settings[at, model]
        auc, lead = interval(values), interval(values - replicates[f"{at} {TWIN}"])
        bounds = (None, None, None) if model == TWIN else (lead.estimate, lead.low, lead.high)
        rows.append(
            {
                "log": experiment.name,
                "setting": at,
                "model": model,
                "learning rate": setting.learning_rate,
                "initial values of maps": setting.map_initial if has_maps(model) else None,
                "validation AUC": float(np.mean([run.best.auc for run in own])),
                **columns("AUC", auc.estimate, auc.low, auc.high),
                **columns("minus TWIN", *bounds),
                "detectable": None if model == TWIN else lead.detectable,
            }
        )
    return rows


def judge(
    record: Record, experiment: Experiment, settings: Settings, replicates: Mapping[str, Replicates], lines: Lines
) -> None:
    """Add the rows of P1 and P2, at the shared setting and at the best ones.

    The best are judged only where the search `lines` has them on this log at this size, and where the grid reaches
    far enough. P2 needs every variant.
    """
    searched, size = choices(lines, experiment), size_note(record.config)

    def add(
        claim: str, quantity: str, at: str, models: Sequence[str], make: Callable[[], tuple[Interval, str]]
    ) -> None:
        if not set(models) <= set(record.config.model_names):
            record.judge(claim, quantity, None, experiment, f"{NOT_COMPUTED}every variant")
        elif at == BEST and not set(models) <= set(searched):
            record.judge(claim, quantity, None, experiment, "no search of this log at this size")
        else:
            measured, note = make()
            blocked = "the grid's edge is chosen" if at == BEST and edge_chosen(searched) else ""
            note = "; ".join(part for part in (note, size) if part)
            record.judge(claim, quantity, measured, experiment, note, blocked=blocked)

    def projection(at: str) -> tuple[Interval, str]:
        note = "; ".join(settings[at, model].describe(model) for model in (TWIN, PROJECTION))
        return interval(replicates[f"{at} {TWIN}"] - replicates[f"{at} {PROJECTION}"]), note

    def best_variant(at: str) -> tuple[Interval, str]:
        leads = {model: replicates[f"{at} {model}"] - replicates[f"{at} {TWIN}"] for model in VARIANTS}
        best = max(leads, key=lambda model: float(leads[model][:, 0].mean()))
        return none_above(leads), f"best of {len(leads)}: {best}"

    for at, suffix in ((SHARED, ""), (BEST, "_best")):
        add("P1", f"twin_minus_projection{suffix}", at, (TWIN, PROJECTION), lambda at=at: projection(at))  # type: ignore[misc]
    for at, suffix in ((SHARED, ""), (BEST, "_best")):
        every = (TWIN, *VARIANTS)
        add("P2", f"best_variant_minus_twin{suffix}", at, every, lambda at=at: best_variant(at))  # type: ignore[misc]


def budget_rows(
    experiment: Experiment, runs: Mapping[str, list[Run]], replicates: Mapping[str, Replicates]
) -> list[dict[str, Any]]:
    """TWIN, TWIN with tables twice as wide, and DARE, at the shared setting."""
    rows = []
    for name, own in runs.items():
        model = own[0].model(experiment.log_of(1))
        auc, lead = interval(replicates[name]), interval(replicates[DARE] - replicates[name])
        bounds = (None, None, None) if name == DARE else (lead.estimate, lead.low, lead.high)
        rows.append(
            {
                "log": experiment.name,
                "model": name,
                "size per field": own[0].config.model.size,
                "parameters in tables": sum(table.numel() for table in model.embedding_parameters()),
                "parameters elsewhere": sum(weight.numel() for weight in model.dense_parameters()),
                **columns("AUC", auc.estimate, auc.low, auc.high),
                **columns(f"{DARE} minus it", *bounds),
                "detectable": None if name == DARE else lead.detectable,
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
        {**row, "parameters of a map": row["size"] ** 2, "parameters per id": row["size"] ** 2 / row["ids"]}
        for row in rows
    ]


def check(config: Config) -> None:
    """Refuse a choice of models that the chapter cannot compare."""
    missing = [model for model in (DARE, TWIN, PROJECTION) if model not in config.model_names]
    if missing:
        raise InputError(f"models: this chapter compares with {', '.join(missing)}: add it, or leave models out.")


def study(record: Record, experiment: Experiment, config: Config) -> None:
    """Train the models on one log at both settings, judge them, and add to the record's tables."""
    own = [line for model in config.model_names for line in search(experiment, model)] if config.search else None
    lines = stored_search() if own is None else own
    settings = settings_of(experiment, lines)
    runs = {(at, model): runs_of(experiment, model, setting) for (at, model), setting in settings.items()}
    every = {f"{at} {model}": found for (at, model), found in runs.items()}
    same_budget = {TWIN: f"{SHARED} {TWIN}", DARE: f"{SHARED} {DARE}"}
    if config.wide:
        every[WIDE] = runs_of(experiment, TWIN, settings[SHARED, TWIN], size=2 * config.size)
        same_budget[WIDE] = WIDE
    replicates = auc_table(experiment, {key: [run.test_probability for run in found] for key, found in every.items()})
    judge(record, experiment, settings, replicates, lines)
    record.tables["variants"] += variant_rows(experiment, settings, runs, replicates)
    record.tables["search"] += own or []
    record.tables["cost"] += cost_rows(experiment, config.model_names)
    record.tables["budget"] += budget_rows(
        experiment,
        {name: every[key] for name, key in same_budget.items()},
        {name: replicates[key] for name, key in same_budget.items()},
    )
    if config.follow_maps:
        record.tables["motion"] += motion_rows(experiment, settings)


def run(config: Config) -> Result:
    """Train the models at the shared setting and at their best, and judge P1 and P2."""
    check(config)
    record = Record("projections", config, RunStore())
    record.tables = {name: [] for name in ("variants", "search", "cost", "budget", "motion", "capacity")}
    experiments = [record.use(name) for name in config.log_names]
    for experiment in experiments:
        study(record, experiment, config)
    record.tables["capacity"] = capacity_rows(experiments)
    if not config.search:
        del record.tables["search"]
    record.write()
    return Result(config, record)
