"""Baselines without learning: the level that any model must reach.

Each gives a score (H, C) to every candidate from the candidate and the history alone. The logistic regression
weighs these few features; it is fitted to the validation samples, because training targets are themselves
among the training clicks: there, popularity counts the answer, and no item is unseen.
"""

from collections.abc import Callable

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from dare_core.data.samples import Samples
from dare_core.data.styled import Oracle
from dare_core.data.worlds import World
from dare_core.evaluation.retrieval import blocks
from dare_core.models.search import same_category

DECAY = 10.0
"""Positions after which a same-category behaviour counts 1/e."""
Features = dict[str, np.ndarray]


def rule_features(samples: Samples, counts: np.ndarray) -> Features:
    """Features (H, C) of every candidate; `counts` (items + 1,) are the clicks of items in training."""
    decay = torch.exp(-torch.arange(samples.history - 1, -1, -1) / DECAY)
    parts: dict[str, list[Tensor]] = {"item in history": [], "category count": [], "category decayed": []}
    for batch in blocks(samples):
        same_item = batch.target_items.unsqueeze(-1) == batch.history_items.unsqueeze(1)
        same = same_category(batch)
        parts["item in history"].append(same_item.any(-1).float())
        parts["category count"].append(same.sum(-1).float())
        parts["category decayed"].append(same.float() @ decay)
    features = {name: torch.cat(blocks).double().numpy() for name, blocks in parts.items()}
    features["popularity"] = np.log1p(counts[samples.items.numpy()])
    features["item unseen in training"] = (~samples.seen.numpy()).astype(np.float64)
    return features


RULES: dict[str, Callable[[Features], np.ndarray]] = {
    "popularity": lambda f: f["popularity"],
    "item unseen in training": lambda f: f["item unseen in training"],
    "item in history": lambda f: f["item in history"],
    "category count": lambda f: f["category count"],
    "category decayed": lambda f: f["category decayed"],
    "item in history, then decayed category": lambda f: 1e3 * f["item in history"] + f["category decayed"],
}
"""Score of each rule from the features; higher means a click is more likely."""


def fit_regression(known: Features, labels: np.ndarray) -> Callable[[Features], np.ndarray]:
    """Logistic regression on the features, fitted to samples that are not tested; gives probabilities."""

    def matrix(features: Features) -> np.ndarray:
        return np.stack([np.log1p(features[name]) for name in known], -1)  # (H, C, F)

    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1_000))
    model.fit(matrix(known).reshape(labels.size, -1), labels.ravel())

    def probability(features: Features) -> np.ndarray:
        values = matrix(features)
        return model.predict_proba(values.reshape(-1, len(known)))[:, 1].reshape(values.shape[:-1])

    return probability


REGRESSION = "logistic regression on these"


def rule_scores(splits: dict[str, Samples], counts: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
    """Scores (H, C) of every rule on the validation and the test samples; on the latter also those of the regression
    that is fitted on the former."""
    features = {split: rule_features(splits[split], counts) for split in ("validation", "test")}
    scores = {split: {name: rule(known) for name, rule in RULES.items()} for split, known in features.items()}
    regression = fit_regression(features["validation"], splits["validation"].labels)
    scores["test"][REGRESSION] = regression(features["test"])
    return scores


def oracle_scores(world: World, samples: Samples) -> np.ndarray:
    """The best possible score (H, C) of every candidate of a styled world: no model has a higher AUC, but by chance.

    Exact where the history holds the user's last 200 clicks, and negatives are never items that their user clicked.
    """
    oracle = Oracle(world)
    batches = ((batch.history_items.numpy(), batch.target_items.numpy()) for batch in blocks(samples))
    return np.concatenate([oracle.score(history, items) for history, items in batches])
