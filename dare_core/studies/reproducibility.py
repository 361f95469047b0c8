"""Reproducibility: speed of the stored runs, and the stored benchmarks."""

import json
from collections import defaultdict
from statistics import median_high
from typing import Any

from dare_core.files import project_root
from dare_core.studies import settings
from dare_core.training.store import list_runs

Config = settings.ReproducibilityConfig


def speed_rows() -> list[dict[str, Any]]:
    """One row per log, model and embedding size: the stored runs, their parameters, and their speed in training."""
    groups = defaultdict(list)
    for run in list_runs():
        groups[run.config.log, run.config.model.name, run.config.model.size].append(run)
    return [
        {
            "log": log,
            "model": model,
            "size": size,
            "runs": len(runs),
            "parameters": runs[0].parameters,
            "seconds of training, median": median_high(run.seconds for run in runs),
            "samples/s, median": round(median_high(run.samples_per_second for run in runs)),
        }
        for (log, model, size), runs in groups.items()
    ]


def benchmarks() -> dict[str, list[dict[str, Any]]]:
    """The figures of the stored benchmarks, by a caption that says with which command, when and where."""
    found = {}
    for path in sorted((project_root() / "benchmarks" / "results").glob("*.json")):
        content = json.loads(path.read_text("utf-8"))
        caption = f"{content['command']} ({content['date']}; {content['machine']})"
        found[caption] = content["figures"]
    return found
