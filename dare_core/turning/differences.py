"""What each difference of the authors' published code moves: those of training, switched on alone (`OFFICIAL` of
`dare_core.config`), and those of what is computed afterwards; and the published settings beside ours."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import yaml

from dare_core.config import OFFICIAL
from dare_core.evaluation.intervals import Replicates, interval, ratio_interval
from dare_core.evaluation.metrics import Array, resampled_auc
from dare_core.evaluation.relevance import GainRule, Gains, information_gains
from dare_core.evaluation.retrieval import candidate_ndcg, retrieve
from dare_core.files import project_root
from dare_core.models.click_model import ClickModel
from dare_core.studies.attention import candidate_means
from dare_core.studies.experiment import CLAIMED, REFERENCE, Experiment
from dare_core.studies.learning import negative_rows, negative_steps, recorded_gradients
from dare_core.studies.scores import columns
from dare_core.studies.settings import CONTROL, PUBLISHED_SETTINGS, TOGETHER, GainSettings, PublishedCodeConfig
from dare_core.training.runs import Run

NONE, LEAD = "none", f"{CLAIMED} minus {REFERENCE}"
PROJECTED = "TWIN (w/ proj.)"
PADDING = "retrieve_padding"
CHANGES: Mapping[str, Mapping[str, Any]] = {
    NONE: {},
    CONTROL: {"repetition": 1},
    **{name: {"official": (name,)} for name in OFFICIAL},
    TOGETHER: {"official": OFFICIAL},
}
"""Settings of training by what is switched on."""
TITLES: Mapping[str, str] = {
    CONTROL: "control: another draw",
    "retrieve_padding": "padding retrieved",
    "no_evaluation_mode": "no evaluation mode",
    "drop_last": "last batch dropped",
    "initialise_all": "BatchNorm, PReLU from N(0, 0.01)",
    "fixed_samples": "seeds move weights only",
    "single_samples": "single samples shuffled",
    TOGETHER: "all six together",
}
"""What is switched on, for readers."""
LEADS_BY = 0.3
"""Lead in NDCG from which a case is saved in the published code, for DARE over TWIN alone."""
OURS, PUBLISHED = GainSettings().rule, GainRule(700, 50, 20, published=True)
RULES: Mapping[str, GainRule] = {
    "ours": OURS,
    "thin cells as published": replace(OURS, published=True),
    "thin cells and thresholds as published": PUBLISHED,
}
"""Which cells of the mutual information are trusted."""
AllGains = Mapping[str, Sequence[Gains]]
"""Gains by rule, one per seed."""


def short_share(experiment: Experiment) -> float:
    """Share of the histories with fewer behaviours than are retrieved: only these can retrieve padding."""
    splits = [samples for seed in experiment.seeds for samples in experiment.samples(seed).values()]
    short = [(part.row - part.start).clamp(max=part.history) < experiment.config.top_k for part in splits]
    return float(torch.cat(short).double().mean())


def trainings(experiment: Experiment, setting: str, config: PublishedCodeConfig) -> dict[tuple[str, str], list[Run]]:
    """The runs by switch, `NONE` first, and model, one per seed. Where no history is short, padding is never
    retrieved: that switch is not trained, and has the runs of `NONE`."""
    idle = {PADDING} if short_share(experiment) == 0 else set()
    switches = [NONE, *(name for name in config.switched if name not in idle)]
    asked = [(switch, model) for switch in switches for model in config.model_names]
    found = experiment.compute([(model, {**PUBLISHED_SETTINGS[setting], **CHANGES[switch]}) for switch, model in asked])
    runs = dict(zip(asked, found, strict=True))
    every = [(switch, model) for switch in (NONE, *config.switched) for model in config.model_names]
    return {(switch, model): runs[NONE if switch in idle else switch, model] for switch, model in every}


def auc_of_runs(experiment: Experiment, runs: Sequence[Run]) -> Replicates:
    """(S, 1 + G) test AUC of runs, one per seed, on the samples that each run had: with `fixed_samples` their negatives
    are the same for every seed. Samples without a score (`drop_last`) are left out."""
    rows = []
    for run in runs:
        test = experiment.store.samples(run.config)["test"]
        scored = ~np.isnan(run.test_probability)
        weights = experiment.weights(test)[:, np.nonzero(scored)[0]]
        rows.append(resampled_auc(test.labels[scored], run.test_probability[scored], weights))
    return np.stack(rows)


def auc_by_switch(
    experiment: Experiment, runs: Mapping[tuple[str, str], Sequence[Run]]
) -> dict[str, dict[str, Replicates]]:
    """Test AUC of each model, and DARE minus TWIN, by switch."""
    found: dict[str, dict[str, Replicates]] = {}
    for (switch, model), own in runs.items():
        found.setdefault(switch, {})[model] = auc_of_runs(experiment, own)
    for auc in found.values():
        auc[LEAD] = auc[CLAIMED] - auc[REFERENCE]
    return found


def seed_spread(replicates: Replicates) -> float | None:
    """Standard deviation over seeds; None for one."""
    return float(replicates[:, 0].std(ddof=1)) if len(replicates) > 1 else None


def left_out_share(runs: Sequence[Run]) -> float:
    """Share of test samples without a score: those of a last partial batch."""
    return float(np.mean([np.isnan(run.test_probability).mean() for run in runs]))


# ------------------------------------------------------------------ what is computed after training


@torch.no_grad()
def transpose_maps(model: ClickModel) -> None:
    """Replace every projection map's weight by its transpose: the published NDCG multiplies by the weight as it is
    stored, where the layer multiplies by its transpose."""
    assert model.embeddings.maps is not None
    for layer in model.embeddings.maps.modules():
        if isinstance(layer, torch.nn.Linear):
            layer.weight.copy_(layer.weight.T.clone())


def orders_of(experiment: Experiment, model: str, setting: str, transposed: bool = False) -> list[np.ndarray]:
    """(H, C, K) behaviours that a model retrieves for the test candidates by falling score, one array per seed."""
    orders = []
    for seed, run in zip(experiment.seeds, experiment.runs_at(model, **PUBLISHED_SETTINGS[setting]), strict=True):
        trained = run.model(experiment.log_of(seed))
        if transposed:
            transpose_maps(trained)
        orders.append(retrieve(trained, experiment.samples(seed)["test"], experiment.config.top_k).order)
    return orders


def gains_of(experiment: Experiment) -> dict[str, list[Gains]]:
    """Gains of the behaviours by each of `RULES`, one per seed."""
    splits = [experiment.samples(seed) for seed in experiment.seeds]
    return {name: [information_gains(s["train"], s["test"], rule) for s in splits] for name, rule in RULES.items()}


def ndcg_of(gains: Sequence[Gains], orders: Sequence[np.ndarray], ideal_at_end: bool = False) -> list[Array]:
    """(H, C, K) NDCG at 1..K, one array per seed; NaN for candidates that are not judged."""
    pairs = zip(gains, orders, strict=True)
    return [candidate_ndcg(own.information, order, own.judged, ideal_at_end) for own, order in pairs]


def mean_of(experiment: Experiment, values: Sequence[Array]) -> Replicates:
    """(S, 1 + G) mean over test candidates of values (H, C), NaN left out."""
    return candidate_means(values, [experiment.weights(experiment.samples(seed)["test"]) for seed in experiment.seeds])


def ndcg_rows(experiment: Experiment, setting: str, gains: AllGains) -> list[dict[str, Any]]:
    """NDCG of DARE and TWIN at the first, the fifth and the last k, by rule of cells and by ideal."""
    orders = {model: orders_of(experiment, model, setting) for model in (CLAIMED, REFERENCE)}
    rows = []
    for rule, own in gains.items():
        for at_end in (False, True):
            values = {model: ndcg_of(own, order, at_end) for model, order in orders.items()}
            for k in sorted({1, min(5, experiment.config.top_k), experiment.config.top_k}):
                means = {m: mean_of(experiment, [each[..., k - 1] for each in v]) for m, v in values.items()}
                row: dict[str, Any] = {"log": experiment.name, "setting": setting, "cells": rule}
                row |= {"ideal": "at K" if at_end else "at k", "k": k}
                row["candidates judged"] = float(np.mean([each.judged.mean() for each in own]))
                row |= {model: float(found[:, 0].mean()) for model, found in means.items()}
                rows.append(row | columns("DARE over TWIN", ratio_interval(means[CLAIMED], means[REFERENCE])))
    return rows


def leading(first: Sequence[Array], second: Sequence[Array], least: float = LEADS_BY) -> list[Array]:
    """(H, C) 1 where the first NDCG is at least so much above the second, else 0; NaN where one is not known."""
    differences = [one - other for one, other in zip(first, second, strict=True)]
    return [np.where(np.isnan(d), np.nan, d >= least) for d in differences]


def compared(experiment: Experiment, setting: str, what: str, published: Array, other: Array) -> dict[str, Any]:
    """A row of two ways to compute one thing, replicates each, with their difference."""
    row: dict[str, Any] = {"log": experiment.name, "setting": setting, "what": what}
    row |= columns("as published", interval(published)) | columns("otherwise", interval(other))
    return row | columns("difference", interval(published - other))


def case_row(experiment: Experiment, setting: str, gains: AllGains) -> dict[str, Any]:
    """Share of test candidates that pass the filter of saved cases, and with the roles of the models exchanged."""
    ndcg = [
        [each[..., -1] for each in ndcg_of(gains["ours"], orders_of(experiment, model, setting))]
        for model in (CLAIMED, REFERENCE)
    ]
    dare, twin = (mean_of(experiment, leading(first, second)) for first, second in (ndcg, ndcg[::-1]))
    return compared(experiment, setting, f"cases: DARE leads by {LEADS_BY}; TWIN does", dare, twin)


def map_row(experiment: Experiment, setting: str, gains: AllGains) -> dict[str, Any]:
    """NDCG at K of the model with maps, its weights untransposed as the published analysis takes them, and as the
    model applies them."""
    found = [orders_of(experiment, PROJECTED, setting, transposed) for transposed in (True, False)]
    means = [mean_of(experiment, [each[..., -1] for each in ndcg_of(gains["ours"], orders)]) for orders in found]
    return compared(experiment, setting, "maps: weight untransposed; as applied", *means)


def conflict_row(experiment: Experiment, setting: str) -> dict[str, Any]:
    """Share of steps with a negative mean cosine, as published, and share of rows with a negative one: TWIN, table of
    categories, all steps; at the published setting with the published start."""
    records = recorded_gradients(experiment, REFERENCE, setting)
    steps = np.array([[negative_steps(record.of("mean_cosine", "category"))] for record in records])
    rows = np.array([[negative_rows([record], "category", slice(None))] for record in records])
    return compared(experiment, setting, "conflict: mean of a step; single rows", steps, rows)


def settings_rows() -> list[dict[str, str]]:
    """The published settings beside ours (`book/published_settings.yml`), as text."""
    entries = yaml.safe_load((project_root() / "book" / "published_settings.yml").read_text("utf-8"))
    return [{name: str(entry[name]) for name in ("setting", "published", "here", "why")} for entry in entries]
