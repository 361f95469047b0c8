"""Your own log: does decoupling pay on it? Six questions, in the order in which they decide, and one answer.

Every model is trained by the recipe (chapter *Method*) on the same samples, a training per seed. The order of the
questions is that of what must be known first: whether anything was learned at all, then whether two tables beat one,
then whether something cheaper than a second table does the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dare_core.data.logs import Log
from dare_core.data.samples import target_rows
from dare_core.errors import InputError
from dare_core.evaluation.intervals import Interval, interval
from dare_core.schedule import measuring
from dare_core.studies import settings
from dare_core.studies.experiment import CLAIMED, FEWEST_STEPS, REFERENCE, Competence, Experiment
from dare_core.studies.learning import negative_share, norm_ratio
from dare_core.studies.scores import auc_table
from dare_core.studies.search_stage import measure
from dare_core.training.loop import FEWEST_SAMPLES, STEPS_AN_EPOCH
from dare_core.training.runs import Run

PAYS = 0.001
"""A gain in AUC of one per mille is what the field calls worth having (paper, section 4.2)."""
FREE = 0.005
"""AUC that a search of half the size may cost and still count as free: the margin of claim E1."""
FEWEST_USERS = 100
"""Users below which no interval over users is to be trusted."""
HISTORIES = (200, 100, 50, 20, 10, 5)
"""Lengths of histories that are chosen from."""
BEYOND = 10
"""Clicks beyond the history that a user must have, as published: 210 for a history of 200; as many again at most."""
WIDE, HALF = "TWIN, twice as wide", "DARE, half the attention size"

Config = settings.YourOwnLogConfig


# --- sizes --------------------------------------------------------------------------------------------------


def shortest_user_for(history: int) -> int:
    """Clicks that a user must have for histories of this length."""
    return history + min(history, BEYOND)


def targets_for(history: int, spacing: int) -> int:
    """Training targets per user, so that the earliest has half a history: 19 for 200 behaviours, as published.

    >>> [targets_for(history, 5) for history in HISTORIES]
    [19, 10, 5, 2, 1, 1]
    """
    return max(1, min(19, (shortest_user_for(history) - 3) // 2 // spacing))


def resolved(config: Config, log: Log) -> Config:
    """The configuration with everything chosen that it leaves open.

    The history is the longest of 200, 100, 50, 20, 10 and 5 for which users with 10 clicks more give the 64,000
    training samples that fill the recipe's steps; where none does, the one that gives most. K is 20, at most a fifth
    of the history.
    """

    def sized(history: int) -> Config:
        return config.model_copy(
            update={
                "history": history,
                "targets": config.targets or targets_for(history, config.spacing),
                "shortest_user": config.shortest_user or shortest_user_for(history),
                "top_k": config.top_k or max(2, min(20, history // 5)),
            }
        )

    def samples(given: Config) -> int:
        enough = int((np.diff(log.offsets) >= given.shortest_user).sum())
        return enough * given.targets * (1 + given.negatives)

    if config.history:
        chosen = sized(config.history)
    else:
        choices = [sized(history) for history in HISTORIES]
        full = [given for given in choices if samples(given) >= STEPS_AN_EPOCH * FEWEST_SAMPLES]
        chosen = full[0] if full else max(choices, key=samples)
    if samples(chosen) <= settings.MOST_SAMPLES:  # all users: the runs are those of other chapters
        chosen = chosen.model_copy(update={"all_users": True})
    return chosen


def rounded(number: float) -> int:
    """A number of users with two digits.

    >>> rounded(12_345)
    12000
    """
    return int(float(f"{number:.2g}"))


@dataclass(frozen=True)
class Size:
    """What of a log is used."""

    users: int  # of the log
    usable: int  # with enough clicks
    used: int  # whose targets are tested
    training_samples: int
    steps: int  # per epoch

    @property
    def too_small(self) -> str:
        """Why nothing is trained; empty where the log is large enough."""
        if self.used < FEWEST_USERS:
            return f"{self.used:,} users can be tested, {FEWEST_USERS} are the least from which an interval is made"
        if self.steps < FEWEST_STEPS:
            return f"{self.steps} steps per epoch, at least {FEWEST_STEPS} are needed for a model to learn"
        return ""

    @property
    def needed(self) -> int:
        """Users needed for training to have enough steps, and intervals enough users."""
        return max(FEWEST_USERS, rounded(self.used * FEWEST_STEPS / max(self.steps, 1)))


def size_of(log: Experiment) -> Size:
    """How much of a log is used, without training."""
    if log.log.card.items < 2:
        raise InputError(f"'{log.log.card.source}' has one item: there is nothing to choose between. Is --item right?")
    rows = target_rows(log.log, log.config.samples_for(log.log))
    usable = int((np.diff(log.log.offsets) >= log.config.shortest_user).sum())
    return Size(log.log.card.users, usable, len(np.unique(rows["test"][1])), log.training_samples, log.steps)


# --- trainings ----------------------------------------------------------------------------------------------

Setting = tuple[str, dict[str, Any]]


def retrieved(config: Config) -> list[int]:
    """The numbers of retrieved behaviours K that both models choose from: a quarter, one and five times the log's."""
    several = {max(1, config.top_k // 4), config.top_k, min(5 * config.top_k, config.history)}
    return sorted(several)


def trainings(config: Config) -> list[Setting]:
    """Every model and setting that the questions need; the first two decide whether the others are asked."""
    others = [k for k in retrieved(config) if k != config.top_k]
    return [
        (CLAIMED, {}),
        (REFERENCE, {}),
        (REFERENCE, {"size": 2 * config.size}),
        *((model, {"top_k": k}) for k in others for model in (CLAIMED, REFERENCE)),
        (CLAIMED, {"attention_size": half_of(config)}),
        (REFERENCE, {"record_gradients": True}),
    ]


def half_of(config: Config) -> int:
    """Half the attention size per field."""
    return max(1, config.size // 2)


# --- evidence -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Learning:
    """Whether DARE and TWIN have learned."""

    competence: Competence
    collapsed: list[str]  # trainings
    new: Interval | None  # AUC of the better model on targets that are new to their user; None where there are few
    new_targets: int
    scores: dict[str, Interval]  # test AUC by model or rule


@dataclass(frozen=True)
class Evidence:
    """What the trainings of a log say of two tables. Differences are of test AUC, DARE first."""

    gain: Interval  # minus TWIN
    wider: Interval  # minus TWIN of as many parameters
    wide_gain: Interval  # of that TWIN, minus TWIN
    chosen: Interval  # minus TWIN, each with its K of highest validation AUC
    chosen_k: dict[str, int]
    half_lost: Interval  # minus DARE with half the attention size
    search: dict[int, float]  # milliseconds per 1,000 searches by attention size per field, measured here
    dominance: Interval  # norm of representation's gradient over attention's
    conflict: Interval  # share of steps with a negative cosine
    megabytes: dict[str, float]  # of the weights, by model
    scores: dict[str, Interval]  # test AUC by model


def collapsed(run: Run) -> bool:
    """Whether a training fell back: its last validation AUC has lost more than half of the best one's lead on 1/2.

    A lead of less than .05 is none that could be lost.
    """
    lead = run.best.auc - 0.5
    return lead > 0.05 and run.history[-1].auc - 0.5 < lead / 2


def best_k(runs: Mapping[int, Sequence[Run]]) -> int:
    """K of the highest validation AUC, mean over seeds; the smallest of equals."""
    return max(sorted(runs), key=lambda k: float(np.mean([run.best.auc for run in runs[k]])))


def learn(log: Experiment) -> Learning:
    """Train DARE and TWIN, and compare them with the rules without learning."""
    log.train((CLAIMED, REFERENCE))
    model = log.competence.model
    new_targets = sum(int(log.samples(seed)["test"].new[:, 0].sum()) for seed in log.seeds) // len(log.seeds)
    aucs = auc_table(log, {name: log.test_scores(name) for name in log.trained} | log.rule_scores())
    enough = new_targets >= FEWEST_USERS
    return Learning(
        competence=log.competence,
        collapsed=[f"{name} seed {seed}" for (name, seed), run in log.runs.items() if collapsed(run)],
        new=interval(auc_table(log, {model: log.test_scores(model)}, "new")[model]) if enough else None,
        new_targets=new_targets,
        scores={name: interval(values) for name, values in aucs.items()},
    )


def gather(log: Experiment, config: Config) -> Evidence:
    """Train what is missing, side by side, and measure everything that the answer rests on."""
    log.compute(trainings(config))
    half, k = half_of(config), config.top_k
    named = {
        CLAIMED: log.runs_at(CLAIMED),
        REFERENCE: log.runs_at(REFERENCE),
        WIDE: log.runs_at(REFERENCE, size=2 * config.size),
        HALF: log.runs_at(CLAIMED, attention_size=half),
    }
    megabytes = {name: 4e-6 * runs[0].parameters for name, runs in named.items()}
    chosen_k = {}
    for model in (CLAIMED, REFERENCE):
        by_k = {several: log.runs_at(model, top_k=several) for several in retrieved(config)}
        chosen_k[model] = best_k(by_k)
        named |= {at_k(model, several, config): runs for several, runs in by_k.items()}
    aucs = auc_table(log, {name: [run.test_probability for run in runs] for name, runs in named.items()})
    records = [run.gradients for run in log.runs_at(REFERENCE, record_gradients=True) if run.gradients is not None]
    with measuring():
        times = measure(config.history, sorted({config.size, half}), rounds=5, top_k=k)
    best = [aucs[at_k(model, chosen_k[model], config)] for model in (CLAIMED, REFERENCE)]
    return Evidence(
        gain=interval(aucs[CLAIMED] - aucs[REFERENCE]),
        wider=interval(aucs[CLAIMED] - aucs[WIDE]),
        wide_gain=interval(aucs[WIDE] - aucs[REFERENCE]),
        chosen=interval(best[0] - best[1]),
        chosen_k=chosen_k,
        half_lost=interval(aucs[CLAIMED] - aucs[HALF]),
        search={time.size: float(np.median(time.searching)) for time in times},
        dominance=norm_ratio(records, "item", slice(None)),
        conflict=negative_share(records, "item", slice(None)),
        megabytes=megabytes,
        scores={name: interval(values) for name, values in aucs.items()},
    )


def at_k(model: str, k: int, config: Config) -> str:
    """Name of a model that retrieves K behaviours."""
    return model if k == config.top_k else f"{model}, K = {k}"
