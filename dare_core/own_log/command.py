"""`dare diagnose`: whether decoupled embeddings pay on a file. Says what it read, trains with progress, executes the
chapter *Your own log* on the finished trainings, and leaves a report."""

import json
import time
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from dare_core.book import execute_chapter
from dare_core.data.logs import Card
from dare_core.errors import InputError
from dare_core.files import store_root
from dare_core.models.zoo import build_model
from dare_core.own_log import study
from dare_core.own_log.answer import EXIT_STATUS, learned, too_small
from dare_core.own_log.file import prepare_file
from dare_core.own_log.page import REPORT
from dare_core.schedule import side_by_side
from dare_core.studies.experiment import Experiment, Record
from dare_core.training.loop import batch_histories, batches, read_batches, seeds_of, train_step
from dare_core.training.optimizers import Steps
from dare_core.training.runs import counts_of

CHAPTER = "your_own_log"
TRIED_STEPS = 30
"""Steps that are timed for the estimate; the first ones compile."""
BESIDE = 60
"""Seconds for all that is not training."""


def understood(card: Card) -> str:
    """What was read of a file, a line per thing."""
    lines = [
        f"{card.source}: {card.rows_read:,} rows read, {card.rows_kept:,} kept",
        f"{card.users:,} users, {card.items:,} items, {card.categories:,} categories",
        *card.filters,
        *(f"{name}: {value}" for part in (card.found, card.checks) for name, value in part.items()),
    ]
    return "\n".join(f"  {line}" for line in lines)


def step_seconds(log: Experiment) -> float:
    """Seconds of a training step of DARE on this log and machine, on one thread."""
    config, splits = log.run_config("DARE", 1), log.samples(1)
    torch.set_num_threads(1)
    model = build_model(config.model, counts_of(log.log, config.samples), config.training, seeds_of(config)[0])
    steps = Steps(model, config.training, TRIED_STEPS, True)
    parts = list(
        islice(
            batches(torch.randperm(len(splits["train"])), batch_histories(config.training, splits["train"]), False),
            TRIED_STEPS,
        )
    )
    seconds = []
    for batch in read_batches(splits["train"], parts):
        started = time.perf_counter()
        train_step(model, batch, steps, config.training, None)
        seconds.append(time.perf_counter() - started)
    return sorted(seconds)[len(seconds) // 2]


def minutes(log: Experiment, config: study.Config) -> float:
    """Estimate of the whole diagnosis in minutes, nothing being stored yet."""
    runs = config.seeds * len(study.trainings(config))
    training = runs * config.epochs * log.steps * step_seconds(log) * 1.3  # validation, and settings that cost more
    return (training / min(side_by_side(), runs) + BESIDE) / 60


def diagnose(values: Mapping[str, Any], out: Path | None, dry_run: bool, say: Callable[[object], None]) -> int:
    """Answer for a file; returns the exit status.

    Parameters
    ----------
    values : parameters of the chapter *Your own log*
    out : folder of the report; by default in the store, by the log's name
    dry_run : stop after saying what was read and how long it will take
    say : prints
    """
    config = study.Config.checked({"world_users": 0, **values})
    read = prepare_file(config)
    say("What was read:\n" + understood(read.card))
    config = study.resolved(config.model_copy(update={"path": "", "logs": read.card.name}), read)
    log = Record.start(CHAPTER, config).use(read.card.name)
    size = study.size_of(log)
    drawn = "" if config.all_users else " (users are drawn by a fixed seed: --all-users takes all)"
    say(
        f"What is trained: histories of {config.history}, K = {config.top_k}, {config.targets} training targets per "
        f"user; {size.used:,} users with at least {config.shortest_user} clicks, {size.training_samples:,} training "
        f"samples{drawn}, {size.steps:,} steps per epoch, {config.seeds} seeds"
    )
    small = size.too_small
    if dry_run:
        say(too_small(size).headline if small else f"It will take about {minutes(log, config):.0f} minutes.")
        return 0
    if not small and learned(study.learn(log)).answer == "yes":
        study.gather(log, config)
    folder = (out or store_root() / "diagnose" / read.card.name).resolve()
    parameters = config.model_dump(mode="json", exclude_defaults=True) | {"results": str(folder), "world_users": 0}
    executed = execute_chapter(CHAPTER, parameters, folder)
    content = json.loads((folder / REPORT[1]).read_text("utf-8"))
    if content["log"]["fingerprint"] != read.card.fingerprint:
        raise InputError(
            f"another process replaced the log '{read.card.name}' meanwhile: give each a --name of its own."
        )
    say(answer_text(content))
    say(f"report:   {folder / REPORT[0]}\ndata:     {folder / REPORT[1]}\nnotebook: {executed}")
    return EXIT_STATUS[content["answer"]]


def answer_text(content: Mapping[str, Any]) -> str:
    """The report's answer for a terminal."""
    lines = [f"\n{content['headline']} {content['reason']}", *content["cautions"]]
    for number, asked in enumerate(content["questions"], 1):
        known = asked.get("estimate") is not None
        bounds = " {estimate:+.4f} [{low:+.4f}, {high:+.4f}]".format(**asked) if known else ""
        lines.append(f"  {number}. {asked['question']} {asked['answer']}: {asked['evidence']}{bounds}")
    lines += [f"  {when.capitalize()}: {advice}" for when, advice in content["what_to_do"].items()]
    return "\n".join(lines)
