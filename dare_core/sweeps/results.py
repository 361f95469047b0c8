"""What a sweep says: the table of its finished runs, and how long those take that are not there yet."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import polars as pl

from dare_core.errors import InputError
from dare_core.files import atomic_path, canonical_json
from dare_core.sweeps.plan import Planned
from dare_core.training.loop import batch_samples, evaluate
from dare_core.training.runs import read_run
from dare_core.training.store import ClickRecord, list_runs, runs_root

SPEEDS = (5_000, 10_000)
"""Samples per second and core that are assumed where no stored run says more, with small batches and with those of
`LARGE` samples or more. At size 16 with 200 behaviours a core computed some 3,000 to 13,000 with small ones (chapter
Reproducibility); of 42 runs of thirteen models with 242, on two busy cores, the median was 9,900."""
LARGE = 200
BESIDE = 1.3
"""Whole time of a run over its training steps: samples are made and the model is validated too."""


def row(run: Planned) -> dict[str, Any]:
    """The line of a finished run. Raises InputError where it is damaged."""
    read, record = read_run(run.key), ClickRecord.read(runs_root() / run.key, whole=False)
    auc, _, logloss = evaluate(read.test_probability)
    model, at = read.config.model, record.environment
    return {
        "log": run.log, "world_seed": run.world and run.world.world_seed, "fingerprint": run.fingerprint,
        "model": model.name, "size": model.size, "attention_size": model.attention_size or model.size,
        "top_k": model.top_k, "history": read.config.samples.history, "seed": read.config.seed,
        "changes": canonical_json(run.changes), "batch_samples": record.batch_samples, "steps": read.history[-1].step,
        "validation_auc": read.best.auc, "best_step": read.best.step, "test_auc": auc, "test_logloss": logloss,
        "parameters": read.parameters, "seconds": read.seconds, "samples_per_second": read.samples_per_second,
        "device": str(at["device"]), "threads": int(at["threads"]), "code": record.code, "created": read.created,
        "key": read.key,
    }  # fmt: skip


def write_table(runs: Sequence[Planned], path: Path) -> dict[str, str]:
    """Write the table of finished runs as Parquet, whole or not at all; returns why runs are not in it, by key."""
    rows, damaged = [], {}
    for run in runs:
        try:
            rows.append(row(run))
        except InputError as error:
            damaged[run.key] = str(error)
    with atomic_path(path) as temporary:
        pl.DataFrame(rows, infer_schema_length=None).write_parquet(temporary)
    return damaged


def assumed_speed(run: Planned) -> int:
    """Samples per second and core of a run, where no stored one says more."""
    batch = batch_samples(run.config.training, run.samples // run.config.training.epochs)
    return SPEEDS[batch >= LARGE]


def core_hours(runs: Sequence[Planned], device: str, threads: int) -> tuple[float, int]:
    """Estimated core hours of runs (on a GPU: its hours), and of how many runs a stored one gave the speed.

    It is the median of stored runs of the same model, sizes, history, device and threads, and of half to twice as many
    samples; `assumed_speed` where there is none.
    """
    stored, hours, known = list_runs(), 0.0, 0
    for run in runs:
        speeds = [
            record.samples_per_second
            for record in stored
            if record.config.model == run.config.model
            and record.config.samples.history == run.config.samples.history
            and (record.environment["device"], record.environment["threads"]) == (device, threads)
            and run.samples / 2 <= record.history[-1].samples <= 2 * run.samples
        ]
        known += bool(speeds)
        cores = 1 if device != "cpu" else threads
        seconds = run.samples / median(speeds) * cores if speeds else run.samples / assumed_speed(run)
        hours += BESIDE * seconds / 3_600
    return hours, known
