"""Overall comparison: the paper's Table 1 with every model, beside rules without learning (claims O1 to O5)."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
import yaml

from dare_core.evaluation.intervals import Interval, Replicates, all_above, interval
from dare_core.evaluation.metrics import grouped_auc, logloss
from dare_core.files import project_root
from dare_core.studies import settings
from dare_core.studies.experiment import CLAIMED, REFERENCE, Experiment

FOUR = {
    "dare_minus_twin_4e": (CLAIMED, "TWIN-4E"),
    "twin_minus_eta": (REFERENCE, "ETA"),
    "twin_minus_sdim": (REFERENCE, "SDIM"),
    "twin_minus_twin_v2": (REFERENCE, "TWIN-V2"),
}
"""The comparisons of O4: the first model of each should be better than the second."""
SIZES = (16, 128)
"""The embedding sizes of O2."""


Config = settings.OverallConfig


Metric = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], float]
"""A metric of labels, probabilities, categories and users of samples, each (n,)."""


def gauc_by_category(labels: np.ndarray, probability: np.ndarray, categories: np.ndarray, users: np.ndarray) -> float:
    """GAUC as the published code groups it: by the target's category."""
    return grouped_auc(labels, probability, categories).value


def gauc_by_user(labels: np.ndarray, probability: np.ndarray, categories: np.ndarray, users: np.ndarray) -> float:
    """GAUC within each user's samples."""
    return grouped_auc(labels, probability, users).value


def mean_logloss(labels: np.ndarray, probability: np.ndarray, categories: np.ndarray, users: np.ndarray) -> float:
    """Logloss, mean over samples: lower is better."""
    return logloss(labels, probability)


def metric_replicates(experiment: Experiment, model: str, metric: Metric) -> Replicates:
    """(S, 1 + G) a metric of a model's test samples, of all users and without each group of them."""
    rows = []
    for seed, probability in zip(experiment.seeds, experiment.test_scores(model), strict=True):
        test = experiment.samples(seed)["test"]
        parts = [test.labels, probability, test.categories.numpy()]
        parts.append(np.broadcast_to(test.users.numpy()[:, None], probability.shape))
        known = ~np.isnan(probability)
        weights = experiment.weights(test).astype(bool)
        rows.append([metric(*(part[kept[:, None] & known] for part in parts)) for kept in weights])
    return np.array(rows)


Pairs = Mapping[str, tuple[str, str]]
"""Comparisons by name: two models each, of which the first should be better."""


def missing_models(pairs: Pairs, trained: Collection[str]) -> str:
    """Which models of some comparisons were not trained, as text; empty where all were."""
    asked = dict.fromkeys(model for pair in pairs.values() for model in pair)
    return ", ".join(model for model in asked if model not in trained)


def smallest_lead(pairs: Pairs, values: Mapping[str, Replicates]) -> Interval:
    """The first model of each pair minus the second: the interval of one comparison, or of the smallest of several
    (`all_above`). `values` holds a metric of every model."""
    leads = {name: values[first] - values[second] for name, (first, second) in pairs.items()}
    return all_above(leads) if len(leads) > 1 else interval(next(iter(leads.values())))


def lead_at(experiment: Experiment, **changes: Any) -> Replicates:
    """AUC of DARE minus that of TWIN at some settings."""
    models = (experiment.runs_at(model, **changes) for model in (CLAIMED, REFERENCE))
    first, second = (experiment.auc_replicates([run.test_probability for run in runs]) for runs in models)
    return first - second


def size_note(config: settings.StudyConfig) -> str:
    """Says so where another embedding size was trained than the paper's number is of."""
    return "" if config.size == 16 else f"at size {config.size}, where the paper's number is for 16"


def paper_rows() -> list[dict[str, Any]]:
    """Table 1 of the paper, quoted: mean AUC by model, log and size."""
    quoted = yaml.safe_load((project_root() / "book" / "table1.yml").read_text("utf-8"))
    return [
        {"model": model, **{f"{log} {size}": cell[0] for log, sizes in logs.items() for size, cell in sizes.items()}}
        for model, logs in quoted["rows"].items()
    ]
