"""Tables of the Attention accuracy chapter: heat maps, closeness, what is kept, the priors of 3.4, cases."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import softmax

from dare_core.attention_maps import (
    divergence,
    learned_attention,
    own_first,
    rank_correlation,
    symmetry,
)
from dare_core.data.generated import world_of
from dare_core.data.world import true_relevance
from dare_core.intervals import jackknife_over_seeds
from dare_core.metrics import Array
from dare_core.relevance import RelevanceCounts
from dare_core.retrieval import NOBODY, Retrieval, jaccard, retrieved_mask
from dare_core.studies.common import Experiment, StudyConfig

AGES = ((1, 10), (11, 20), (21, 50), (51, 100), (101, 200), (201, None))
"""Positions of the bins of age; the last is open."""
PRIORS = ("DARE", "TWIN-4E")
LEAST_SAME = 3
"""Behaviours of the target's category in the history of a case."""
MAPS = 2
"""Target categories whose heat maps are shown."""


def map_rows(
    experiment: Experiment, counts: Sequence[RelevanceCounts], maps: Mapping[str, Sequence[Array]]
) -> list[dict[str, Any]]:
    """Heat maps of the most frequent target categories, seed 1: a line a cell, with what each model attends to it.

    Attention is the softmax of the scores over the cells of a map, as in the published figure.
    """
    first = counts[0]
    layers = {"mutual information": first.mutual_information()}
    for name, values in maps.items():
        layers[name] = softmax(values[0], (1, 2))
    return [
        {
            "log": experiment.name,
            "target category": int(first.categories[c]),
            "behaviour category": int(first.categories[b]),
            "position": p + 1,
            **{label: float(layer[c, b, p]) for label, layer in layers.items()},
        }
        for c in range(min(MAPS, len(first.categories)))
        for b in range(len(first.categories))
        for p in range(first.positions)
    ]


def true_map(experiment: Experiment, counts: RelevanceCounts) -> Array | None:
    """(T, T, P) true relevance of the heat maps' cells on a generated world where there is any, else None."""
    world = world_of(experiment.log)
    if world is None:
        return None
    t = len(counts.categories)
    history = np.repeat(counts.categories[:, None], counts.positions, 1)  # a history of b alone
    values = [true_relevance(world, history, np.full(t, c)) for c in counts.categories]
    relevance = np.stack(values)[..., ::-1]  # newest last -> position from 1
    return relevance if relevance.any() else None


def closeness_rows(
    experiment: Experiment, counts: Sequence[RelevanceCounts], maps: Mapping[str, Sequence[Array]]
) -> list[dict[str, Any]]:
    """How near learned attention is to relevance: rank correlation and divergence, mean over target categories."""
    truths = [true_map(experiment, c) for c in counts]
    rows = []
    for name, learned in maps.items():
        line: dict[str, Any] = {"log": experiment.name, "model": name}
        for label, measure in (("rank correlation", rank_correlation), ("divergence, bits", divergence)):

            def mean(weights: Array, measure: Any = measure, learned: Sequence[Array] = learned) -> Array:
                pairs = zip(counts, learned, strict=True)
                return np.array([np.nanmean(measure(c.mutual_information(weights), m)) for c, m in pairs])

            interval = jackknife_over_seeds(counts[0].users, mean)
            line[label] = interval.estimate
            line[f"{label} 95 %"] = f"[{interval.low:.3f}, {interval.high:.3f}]"
            known = [np.nanmean(measure(t, m)) for t, m in zip(truths, learned, strict=True) if t is not None]
            line[f"{label}, true relevance"] = float(np.mean(known)) if known else None
        rows.append(line)
    return rows


def kept_rows(
    experiment: Experiment, retrieved: Mapping[str, Sequence[Retrieval]], correct: Sequence[np.ndarray]
) -> list[dict[str, Any]]:
    """Of the K behaviours of highest gain, how many each model or rule retrieves, by age and category match."""
    length = correct[0].shape[-1]
    position = np.arange(length, 0, -1)
    matches = []
    for seed in experiment.seeds:
        batch = experiment.samples(seed)["test"].batch(slice(None))
        matches.append((batch.target_categories.unsqueeze(-1) == batch.history_categories.unsqueeze(1)).numpy())
    rows = []
    for name, found in retrieved.items():
        kept = [c & retrieved_mask(r.order, length) for c, r in zip(correct, found, strict=True)]
        for first, last in AGES:
            columns = (position >= first) & (position <= (last or length))
            if not columns.any():
                continue
            for label, turned in (("same category", False), ("other category", True)):
                pairs = [(m ^ turned) & columns for m in matches]
                there = sum(int((c & pair).sum()) for c, pair in zip(correct, pairs, strict=True))
                taken = sum(int((k & pair).sum()) for k, pair in zip(kept, pairs, strict=True))
                rows.append(
                    {
                        "log": experiment.name,
                        "model or rule": name,
                        "positions": f"{first}-{min(last or length, length)}",
                        "behaviours": label,
                        "correct, all seeds": there,
                        "share kept": taken / there if there else None,
                    }
                )
    return rows


def prior_rows(
    experiment: Experiment,
    counts: Sequence[RelevanceCounts],
    relevance: Sequence[Array],
    config: StudyConfig,
) -> list[dict[str, Any]]:
    """The two priors of section 3.4 in the log and as learned: symmetry, and the target's own category first.

    In a model, relevance is the category part of the score.
    """
    found: dict[str, list[Array]] = {"the log": list(relevance)}
    for name in [name for name in PRIORS if name in config.model_names]:
        found[name] = [
            learned_attention(experiment.runs[name, seed].model(experiment.log), c.categories, 1)[..., 0]
            for seed, c in zip(experiment.seeds, counts, strict=True)
        ]
    return [
        {
            "log": experiment.name,
            "relevance in": name,
            "target categories": len(values[0]),
            "symmetry": float(np.mean([symmetry(v) for v in values])) if len(values[0]) > 2 else None,
            "own category first": float(np.mean([own_first(v) / len(v) for v in values])),
            "over chance": float(np.mean([own_first(v) for v in values])),
        }
        for name, values in found.items()
    ]


def case_rows(
    experiment: Experiment, retrieved: Mapping[str, Sequence[Retrieval]], pair: tuple[str, str], cases: int
) -> list[dict[str, Any]]:
    """Cases by rule: the clicked targets (seed 1) whose retrieved sets differ most between two models (Jaccard
    index, ties by the order of users), and as many drawn at random, among those whose history holds at least
    `LEAST_SAME` behaviours of the target's category. A line a behaviour of the history.
    """
    if not set(pair) <= set(retrieved):
        return []
    test = experiment.samples(1)["test"]
    orders = {name: found[0].order[:, 0] for name, found in retrieved.items()}  # (H, K)
    index = jaccard(*(retrieved_mask(orders[name], test.history) for name in pair))
    batch = test.batch(slice(None))
    same_category = (batch.history_categories == batch.target_categories[:, :1]).sum(1).numpy()
    order = np.argsort(index, kind="stable")
    order = order[same_category[order] >= LEAST_SAME]
    rest = order[cases:]
    drawn = np.random.default_rng(0).choice(rest, min(cases, len(rest)), replace=False)
    rows = []
    for why, chosen in (("disagree most", order[:cases]), ("random", np.sort(drawn))):
        for row in chosen:
            batch = test.batch(slice(int(row), int(row) + 1))
            history = batch.history_categories.numpy()[0]
            target = int(batch.target_categories[0, 0])
            retrievers = {name: {int(c) for c in columns[row] if c != NOBODY} for name, columns in orders.items()}
            for column in np.flatnonzero(history)[::-1]:
                rows.append(
                    {
                        "log": experiment.name,
                        "case": why,
                        "user": int(test.users[row]) + 1,
                        "Jaccard": float(index[row]),
                        "target category": target,
                        "position": test.history - int(column),
                        "behaviour category": int(history[column]),
                        **{name: int(column in taken) for name, taken in retrievers.items()},
                    }
                )
    return rows
