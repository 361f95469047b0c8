"""Tables of the Attention accuracy chapter: retrieval, heat maps, closeness, what is kept, the priors of 3.4, cases."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import softmax

from dare_core.evaluation.attention_maps import divergence, learned_attention, own_first, rank_correlation, symmetry
from dare_core.evaluation.intervals import Interval, Replicates, interval
from dare_core.evaluation.metrics import Array
from dare_core.evaluation.retrieval import NOT_RETRIEVED, Retrieval, jaccard, retrieved_mask
from dare_core.studies.attention_view import (
    GAINS,
    LEAST_CATEGORIES,
    Measure,
    View,
    estimated_closeness,
    left_out,
    ndcg_at_k,
    recent_other,
    true_closeness,
)
from dare_core.studies.scores import columns

AGES = ((1, 10), (11, 20), (21, 50), (51, 100), (101, 200), (201, None))
"""Positions of the bins of age; the last is open."""
PRIORS = ("DARE", "TWIN-4E")
LEAST_SAME = 3
"""Behaviours of the target's category in the history of a case."""
MAPS = 2
"""Target categories whose heat maps are shown."""
CLOSENESS: dict[str, Measure] = {"rank correlation": rank_correlation, "divergence, bits": divergence}


def with_interval(name: str, replicates: Replicates) -> dict[str, float | None]:
    """A statistic with its interval, as columns; nothing where it does not exist."""
    found: Interval = interval(replicates)
    values = (found.estimate, found.low, found.high)
    return columns(name, *(float(value) if np.isfinite(value) else None for value in values))


def retrieval_rows(view: View) -> list[dict[str, Any]]:
    """NDCG at K by each kind of gain, and the shares of A2 and A4, one row per model or rule."""
    rows = []
    for name in view.retrieved:
        row: dict[str, Any] = {"log": view.experiment.name, "model or rule": name}
        for gain, label in GAINS.items():
            row |= with_interval(label, ndcg_at_k(view, gain, name))
        judged = [np.isfinite(values[..., -1]).sum() for values in view.quality["information"][name]]
        row["samples judged"] = round(float(np.mean(judged)))
        row |= with_interval("attention on recent others", recent_other(view, name))
        row |= with_interval("same category left out", left_out(view, name))
        rows.append(row)
    return sorted(rows, key=lambda row: -(row["NDCG"] or 0))


def curve_rows(view: View) -> list[dict[str, Any]]:
    """NDCG at k = 1..K by each kind of gain, mean over test samples and seeds."""
    rows = []
    for gain, models in view.quality.items():
        for name, values in models.items():
            known = [v[np.isfinite(v[..., -1])] for v in values]  # (n, K) each
            if not all(len(v) for v in known):
                continue
            rows += [
                {"log": view.experiment.name, "gain": gain, "model or rule": name, "k": k, "NDCG": float(value)}
                for k, value in enumerate(np.mean([v.mean(0) for v in known], 0), 1)
            ]
    return rows


def map_rows(view: View) -> list[dict[str, Any]]:
    """Heat maps of the most frequent target categories, seed 1: one row per cell, with what each model attends to it.

    Attention is the softmax of the scores over the cells of a map, as in the published figure.
    """
    first = view.counts[0]
    layers = {"mutual information": first.mutual_information()}
    for name, values in view.maps.items():
        layers[name] = softmax(values[0], (1, 2))
    return [
        {
            "log": view.experiment.name,
            "target category": int(first.categories[c]),
            "behaviour category": int(first.categories[b]),
            "position": p + 1,
            **{label: float(layer[c, b, p]) for label, layer in layers.items()},
        }
        for c in range(min(MAPS, len(first.categories)))
        for b in range(len(first.categories))
        for p in range(first.positions)
    ]


def closeness_rows(view: View) -> list[dict[str, Any]]:
    """How near learned attention is to relevance: rank correlation and divergence, mean over target categories."""
    rows = []
    for name in view.maps:
        row: dict[str, Any] = {"log": view.experiment.name, "model": name}
        for label, measure in CLOSENESS.items():
            row |= with_interval(label, estimated_closeness(view, name, measure))
            row |= with_interval(f"{label}, true relevance", true_closeness(view, name, measure))
        rows.append(row)
    return rows


def kept_rows(view: View, correct: Sequence[np.ndarray]) -> list[dict[str, Any]]:
    """Of the K behaviours of highest gain, how many each model or rule retrieves, by age and category match."""
    length = correct[0].shape[-1]
    position = np.arange(length, 0, -1)
    matches = []
    for split in view.splits:
        batch = split["test"].batch(slice(None))
        matches.append((batch.target_categories.unsqueeze(-1) == batch.history_categories.unsqueeze(1)).numpy())
    rows = []
    for name, found in view.retrieved.items():
        kept = [c & retrieved_mask(r.order, length) for c, r in zip(correct, found, strict=True)]
        for first, last in AGES:
            inside = (position >= first) & (position <= (last or length))
            if not inside.any():
                continue
            for label, turned in (("same category", False), ("other category", True)):
                pairs = [(m ^ turned) & inside for m in matches]
                there = sum(int((c & pair).sum()) for c, pair in zip(correct, pairs, strict=True))
                taken = sum(int((k & pair).sum()) for k, pair in zip(kept, pairs, strict=True))
                rows.append(
                    {
                        "log": view.experiment.name,
                        "model or rule": name,
                        "positions": f"{first}-{min(last or length, length)}",
                        "behaviours": label,
                        "correct, all seeds": there,
                        "share kept": taken / there if there else None,
                    }
                )
    return rows


def prior_rows(view: View, models: Sequence[str]) -> list[dict[str, Any]]:
    """The two priors of section 3.4 in the log and as learned: symmetry, and the target's own category first.

    In a model, relevance is the category part of the score.
    """
    experiment = view.experiment
    found: dict[str, list[Array]] = {"the log": view.prior_relevance}
    for name in [name for name in PRIORS if name in models]:
        found[name] = [
            learned_attention(experiment.runs[name, seed].model(experiment.log_of(seed)), c.categories, 1)[..., 0]
            for seed, c in zip(experiment.seeds, view.priors, strict=True)
        ]
    return [
        {
            "log": experiment.name,
            "relevance in": name,
            "target categories": round(float(np.mean([len(v) for v in values]))),
            "symmetry": float(np.mean([symmetry(v) for v in values])) if enough(values) else None,
            "own category first": float(np.mean([own_first(v) for v in values])),
            "by chance": float(np.mean([1 / len(v) for v in values])),
        }
        for name, values in found.items()
    ]


def enough(values: Sequence[Array]) -> bool:
    """Whether every map of relevance (T, T) has enough categories."""
    return min(len(value) for value in values) >= LEAST_CATEGORIES


def case_rows(
    view: View, retrieved: Mapping[str, Sequence[Retrieval]], pair: tuple[str, str], cases: int
) -> list[dict[str, Any]]:
    """Cases by rule: the clicked targets (seed 1) whose retrieved sets differ most between two models (Jaccard
    index, ties by the order of users), and as many drawn at random, among those whose history holds at least
    `LEAST_SAME` behaviours of the target's category. One row per behaviour of the history.
    """
    if not set(pair) <= set(retrieved):
        return []
    test = view.splits[0]["test"]
    orders = {name: found[0].order[:, 0] for name, found in retrieved.items()}  # (H, K)
    index = jaccard(*(retrieved_mask(orders[name], test.history) for name in pair))
    batch = test.batch(slice(None))
    same_category = (batch.history_categories == batch.target_categories[:, :1]).sum(1).numpy()
    ranked = np.argsort(index, kind="stable")
    ranked = ranked[same_category[ranked] >= LEAST_SAME]
    rest = ranked[cases:]
    drawn = np.random.default_rng(0).choice(rest, min(cases, len(rest)), replace=False)
    rows = []
    for why, chosen in (("disagree most", ranked[:cases]), ("random", np.sort(drawn))):
        for row in chosen:
            batch = test.batch(slice(int(row), int(row) + 1))
            history = batch.history_categories.numpy()[0]
            target = int(batch.target_categories[0, 0])
            retrieved_by = {name: set(order[row].tolist()) - {NOT_RETRIEVED} for name, order in orders.items()}
            for column in np.flatnonzero(history)[::-1]:
                rows.append(
                    {
                        "log": view.experiment.name,
                        "case": why,
                        "user": int(test.users[row]) + 1,
                        "Jaccard": float(index[row]),
                        "target category": target,
                        "position": test.history - int(column),
                        "behaviour category": int(history[column]),
                        **{name: int(column in taken) for name, taken in retrieved_by.items()},
                    }
                )
    return rows
