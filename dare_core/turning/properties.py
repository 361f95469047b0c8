"""Properties of a log that can be measured before any training (`properties` of the protocol)."""

import numpy as np

from dare_core.data.log_statistics import switches
from dare_core.data.samples import Samples, training_counts
from dare_core.evaluation.metrics import auc
from dare_core.evaluation.retrieval import blocks
from dare_core.models.search import same_category
from dare_core.studies.experiment import Experiment

RECENT = 10


def properties_of(log: Experiment) -> dict[str, float]:
    """The properties of a log's training samples by name, means over seeds (which move the negatives)."""
    found = [_of_seed(log, at, seed) for at, seed in enumerate(log.seeds)]
    return {name: float(np.mean([values[name] for values in found])) for name in found[0]}


def _of_seed(log: Experiment, at: int, seed: int) -> dict[str, float]:
    data, splits, rules = log.log_of(seed), log.samples(seed), log.rule_scores("validation")
    train = splits["train"]
    repeats, own, recent, others = _shares(train)
    share = np.bincount(train.categories.numpy()[:, 0]) / len(train)
    counts = training_counts(data, log.config.samples_for(data).split)
    _, kept = np.unique(train.users.numpy(), return_index=True)
    users = train.users.numpy()[kept]
    rows = np.concatenate([np.arange(*data.offsets[user : user + 2]) for user in users])
    owner = np.repeat(users, np.diff(data.offsets)[users])
    arrivals, by_chance = switches(owner, data.categories[rows].astype(np.int64))
    return {
        "repeats": repeats,
        "same category": own - others,
        "recent": recent,
        "related": float(np.log(arrivals / by_chance)) if arrivals and by_chance else 0.0,
        "categories": float(-(share[share > 0] * np.log(share[share > 0])).sum()),
        "items per category": float(np.log(data.card.items / data.card.categories)),
        "clicks per item": float(np.log(counts.sum() / data.card.items)),
        "rule": max(auc(splits["validation"].labels, values[at]) for values in rules.values()),
    }


def _shares(train: Samples) -> tuple[float, float, float, float]:
    """Share of targets whose item is in the history; whose category is; of these, that have it among the last ten; and
    of negatives whose category is in the history."""
    repeats, own, recent, others = [], [], [], []
    for batch in blocks(train):
        same = same_category(batch)
        repeats.append((batch.target_items[:, :1] == batch.history_items).any(-1))
        own.append(same[:, 0].any(-1))
        recent.append(same[:, 0, -RECENT:].any(-1))
        others.append(same[:, 1:].any(-1))
    share = [float(np.concatenate([part.numpy() for part in parts]).mean()) for parts in (repeats, own, recent, others)]
    return share[0], share[1], share[2] / share[1] if share[1] else 0.0, share[3]
