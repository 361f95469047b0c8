"""The answer to *does decoupling pay on this log?*, from what its trainings say: questions in the order in which they
decide, what to do, and whether the log can tell."""

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from dare_core.data.logs import Log
from dare_core.evaluation.intervals import Interval
from dare_core.own_log.study import FREE, PAYS, WIDE, Config, Evidence, Learning, Size, half_of, rounded
from dare_core.studies.experiment import CLAIMED, REFERENCE, Experiment

Verdict = Literal["yes", "no", "cannot tell"]
Code = Literal["yes", "wider_table", "no", "cannot_tell", "stop"]
EXIT_STATUS: dict[Code, int] = {"yes": 0, "wider_table": 0, "no": 0, "cannot_tell": 3, "stop": 3}
"""Exit status of the command that asks."""
MUCH = 0.05
"""Share of a log's rows from which a caution is given."""
VERSION = 1
"""Of the report's JSON form."""


@dataclass(frozen=True)
class Question:
    """One question, its answer, and what the answer rests on."""

    text: str
    answer: Verdict
    evidence: str
    measured: Interval | None = None  # a difference of AUC


@dataclass(frozen=True)
class Answer:
    """Does decoupling pay on this log?"""

    code: Code
    headline: str
    reason: str
    questions: list[Question]


def users_needed(found: Interval, users: int) -> int:
    """Users with which an interval would exclude 0 in four cases of five, if the gain is the one found (at least one
    per mille). Intervals shrink with the root of the number of users; trainings must grow with it."""
    return rounded(users * (found.detectable / max(abs(found.estimate), PAYS)) ** 2)


def side(found: Interval) -> Verdict:
    """Whether a difference is a gain: yes above 0, no where one per mille is excluded, else cannot tell."""
    return "yes" if found.low > 0 else "no" if found.high < PAYS else "cannot tell"


def learned(learning: Learning) -> Question:
    """Whether the models have learned, on items that are new to their users too."""
    found = learning.competence
    answer: Verdict = "yes"
    notes = [
        f"{found.model} {found.model_auc:.3f}, best rule without learning {found.rule_interval.estimate:.3f} "
        f"({found.rule})"
    ]
    if found.not_learned:
        answer = "no"
        notes.append(found.not_learned)
    if learning.new is None:
        notes.append(f"{learning.new_targets:,} test targets are new to their user, too few to test on them")
    else:
        notes.append(f"AUC on items new to their user {learning.new}")
    chance = learning.new_targets == 0 or (learning.new is not None and learning.new.low <= 0.5)
    if chance and not found.not_learned:
        answer = "no"
        notes.append("nothing is known to be learned but that users repeat")
    if learning.collapsed:
        notes.append(f"training collapsed ({', '.join(learning.collapsed)})")
    return Question("Have the models learned?", answer, "; ".join(notes))


def further_questions(evidence: Evidence, config: Config) -> list[Question]:
    """The questions that are asked of models that have learned, in the order in which they decide."""
    k = evidence.chosen_k
    size, half = config.size, half_of(config)
    free: Verdict = (
        "yes" if evidence.half_lost.high < FREE else "no" if evidence.half_lost.low > FREE else "cannot tell"
    )
    saved = f"{evidence.search[half]:.2f} instead of {evidence.search[size]:.2f} ms per 1,000 searches, measured here"
    dominated: Verdict = "yes" if evidence.dominance.low > 1 and evidence.conflict.low > 0.5 else "no"
    ratio = f"representation's gradient is {evidence.dominance.estimate:.1f} times attention's"
    conflict = f"they oppose each other in {evidence.conflict.estimate:.0%} of the steps"
    return [
        Question(f"Does DARE beat TWIN (K = {config.top_k})?", side(evidence.gain), "DARE minus TWIN", evidence.gain),
        Question("… when TWIN has as many parameters?", side(evidence.wider), f"DARE minus {WIDE}", evidence.wider),
        Question(
            "… when both choose K on validation?",
            side(evidence.chosen),
            f"DARE (K = {k[CLAIMED]}) minus TWIN (K = {k[REFERENCE]})",
            evidence.chosen,
        ),
        Question("Is half the attention size free?", free, f"AUC lost; {saved}", evidence.half_lost),
        Question("Is attention's gradient dominated, and opposed?", dominated, f"{ratio}; {conflict}"),
    ]


def stopped(learning: Learning, first: Question, seeds: int) -> Answer:
    """The answer where the models have not learned."""
    if len(learning.collapsed) == 2 * seeds:
        headline, reason = "Stop: training collapses.", "Every training fell back; take a smaller learning rate."
    elif learning.competence.not_learned:
        headline = "Stop: no model clears the rule."
        reason = f"{learning.competence.not_learned}.".capitalize()
    else:
        headline = "Stop: no model knows a new item."
        reason = "On items that are new to their user every model is at chance, or no target is new."
    return Answer("stop", headline, reason, [first])


def decide(learning: Learning, evidence: Evidence | None, config: Config, users: int) -> Answer:
    """The answer: the first question that is not a yes decides. `evidence` is None where nothing was learned."""
    first = learned(learning)
    if evidence is None:
        return stopped(learning, first, config.seeds)
    questions = [first, *further_questions(evidence, config)]
    _, gain, wider, chosen = questions[:4]
    lead = f"DARE minus TWIN is {evidence.gain}"
    if gain.answer == "no":
        return Answer("no", "No.", f"{lead}: a gain of one per mille is excluded.", questions)
    if gain.answer == "yes" and wider.answer != "yes" and evidence.wide_gain.low > 0:
        reason = f"{lead}; that of a TWIN of as many parameters minus TWIN is {evidence.wide_gain}, "
        reason += f"and DARE minus it {evidence.wider}."
        return Answer("wider_table", "Yes, but a wider table does it.", reason, questions)
    if gain.answer == wider.answer == "yes" and chosen.answer == "no":
        reason = f"{lead} at K = {config.top_k}, but {evidence.chosen} once both choose K."
        return Answer("no", "No: choose K instead.", reason, questions)
    for question, measured in ((gain, evidence.gain), (wider, evidence.wider), (chosen, evidence.chosen)):
        if question.answer != "yes":
            headline = f"Cannot tell: about {users_needed(measured, users):,} users are needed."
            reason = f"{question.evidence} is {measured}: neither 0 nor a gain worth having is excluded."
            return Answer("cannot_tell", headline, reason if question is gain else f"{lead}; but {reason}", questions)
    return Answer("yes", "Yes.", f"{lead}, and stays above 0 at equal size and at chosen K.", questions)


def too_small(size: Size) -> Answer:
    """The answer for a log on which nothing is worth training."""
    return Answer(
        "cannot_tell", f"Cannot tell: about {size.needed:,} users are needed.", f"{size.too_small}.".capitalize(), []
    )


def what_to_do(answer: Answer, learning: Learning, evidence: Evidence | None, config: Config) -> dict[str, str]:
    """Advice by whether the search stage is the bottleneck."""
    if evidence is None:
        found = learning.competence
        if found.rule_interval.low <= 0.5:
            text = "Nothing tried here predicts a click: check which columns hold user, item, category and time."
        else:
            text = f"Serve the rule ({found.rule}) until a model beats it: more users, or another learning rate."
        return {"in any case": text}
    best = max(evidence.scores, key=lambda name: evidence.scores[name].estimate)
    half = half_of(config)
    share = evidence.search[half] / evidence.search[config.size]
    plain = (
        f"Of what was tried, {best} has the highest test AUC, {evidence.scores[best].estimate:.3f}. "
        + {
            "yes": "Take DARE.",
            "wider_table": f"Take {WIDE}: one table, as many parameters.",
            "no": "Keep one table.",
            "cannot_tell": "Keep one table until more users tell.",
            "stop": "",
        }[answer.code]
    )
    fast = (
        f"DARE with an attention size of {half} searches in {share:.2f} of the time; "
        f"the AUC that it loses is {evidence.half_lost}."
    )
    return {"search is not the bottleneck": plain, "search is the bottleneck": fast}


def facts(log: Experiment, config: Config, size: Size, learning: Learning | None) -> list[dict[str, str]]:
    """Whether this log can tell: what it holds, and what the negatives give away."""
    card = log.log.card
    enough = f"{size.usable:,} with at least {config.shortest_user} clicks, {size.used:,} used"
    rows = [
        ("users", f"{size.users:,}; {enough}"),
        ("training samples", f"{size.training_samples:,}, {size.steps:,} steps per epoch"),
        ("items, categories", f"{card.items:,}, {card.categories:,}"),
    ]
    if card.categories == 1:
        rows.append(("no categories", "only items tell behaviours apart, and a new item has no like in the history"))
    if learning is not None:
        test = [log.samples(seed)["test"] for seed in log.seeds]
        repeats = 1 - float(np.mean([part.new[:, 0].numpy().mean() for part in test]))
        unseen = 1 - float(np.mean([part.seen[:, 0].numpy().mean() for part in test]))
        fair = "1/2: negatives are as popular"
        never = "" if config.clicked else "; a negative never was"
        rows += [
            ("popularity alone", f"AUC {learning.scores['popularity'].estimate:.3f} ({fair})"),
            ("repeats", f"{repeats:.0%} of test targets were clicked before by their user{never}"),
            ("clicked before, alone", f"AUC {learning.scores['item in history'].estimate:.3f}"),
            ("items not seen in training", f"{unseen:.0%} of test targets"),
        ]
    return [{"what": what, "on this log": value} for what, value in rows]


def cautions(log: Log) -> list[str]:
    """What in a log may mislead, where it is much: copies, one user, equal times."""
    card, rows = log.card, log.card.rows_kept
    found = []
    if (copies := card.checks.get("exact copies", 0)) > MUCH * rows:
        found.append(f"{copies:,} rows are exact copies of others: if they are no clicks, --copies drop.")
    if (longest := int(np.diff(log.offsets).max())) > MUCH * rows and card.users > 1 / MUCH:
        found.append(f"One user has {longest / rows:.0%} of the rows: if it is no person, --longest-user.")
    if (ties := card.checks.get("rows of a user with equal times", 0)) > rows / 2:
        found.append(
            f"{ties / rows:.0%} of the rows share their time with another of their user: their order is drawn."
        )
    if (zero := card.checks.get("times of zero", 0)) > MUCH * rows:
        found.append(f"{zero:,} rows have a time of zero and come first in their histories.")
    if alike := card.checks.get("ids that differ only in blanks or .0"):
        found.append(f"Ids differ only in blanks or .0 ({alike}): --ids tidy makes them one.")
    return found


def power(evidence: Evidence, users: int) -> list[dict[str, str]]:
    """What differences the log can find."""
    needed = users_needed(replace(evidence.gain, estimate=PAYS), users)
    return [
        {"what": "smallest difference found", "on this log": f"{evidence.gain.detectable:.4f} AUC, in 4 of 5 cases"},
        {"what": "users needed for one per mille", "on this log": f"about {needed:,}"},
    ]


def report(
    log: Experiment, config: Config, size: Size, answer: Answer, learning: Learning | None, evidence: Evidence | None
) -> dict[str, Any]:
    """The report as JSON: a version, the answer's code, and everything that the page shows."""
    scores = (learning.scores if learning else {}) | (evidence.scores if evidence else {})
    ranked = sorted(scores.items(), key=lambda entry: -entry[1].estimate)
    return {
        "version": VERSION,
        "answer": answer.code,
        "headline": answer.headline,
        "reason": answer.reason,
        "questions": [
            {"question": asked.text, "answer": asked.answer, "evidence": asked.evidence, **bounds(asked.measured)}
            for asked in answer.questions
        ],
        "what_to_do": what_to_do(answer, learning, evidence, config) if learning else {},
        "cautions": cautions(log.log),
        "facts": facts(log, config, size, learning) + (power(evidence, size.used) if evidence else []),
        "scores": [{"model or rule": name} | bounds(found) for name, found in ranked],
        "cost": cost(evidence) if evidence else {},
        "settings": config.model_dump(mode="json", exclude={"profile", "results", "command"}),
        "log": shown_card(log.log.card.model_dump(mode="json"), config.show_ids),
    }


def cost(evidence: Evidence) -> dict[str, dict[str, float]]:
    """Size of the weights, and time of the search stage."""
    return {
        "GB of weights": {name: megabytes / 1e3 for name, megabytes in evidence.megabytes.items()},
        "ms per 1,000 searches": {f"attention size {size}": time for size, time in evidence.search.items()},
    }


def bounds(found: Interval | None) -> dict[str, float | None]:
    """An interval's numbers; nothing where they are unknown."""
    if found is None:
        return {}
    names = ("estimate", "low", "high", "detectable")
    return {name: value if np.isfinite(value := float(getattr(found, name))) else None for name in names}


def shown_card(card: dict[str, Any], show_ids: bool) -> dict[str, Any]:
    """A data card without the largest user's id, unless it is asked for."""
    checks = dict(card["checks"])
    if not show_ids and "largest user" in checks:
        checks["largest user"] = "one user" + checks["largest user"][checks["largest user"].rfind(" has ") :]
    return card | {"checks": checks}
