"""Reproducibility: environment, hardware, times, seeds, what was computed and what was reused."""

import json
import os
import platform
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch

from dare_core.files import project_root, sha256_of
from dare_core.report.claims import chapter_results
from dare_core.report.show import Shown, table
from dare_core.studies import settings
from dare_core.training.store import list_runs, processor

PACKAGES = ("torch", "numpy", "polars", "scikit-learn", "scipy", "papermill", "jupyter-book", "safetensors")

Config = settings.ReproducibilityConfig


@dataclass
class Result:
    """Everything that the chapter shows."""

    config: Config
    environment: list[dict[str, Any]]
    chapters: list[dict[str, Any]]
    runs: list[dict[str, Any]]
    benchmarks: dict[str, list[dict[str, Any]]]  # figures by caption


def run(config: Config) -> Result:
    """Collect what the book was made with."""
    lock = project_root() / "requirements.lock"
    environment = [
        {"what": "Python", "value": platform.python_version()},
        *({"what": name, "value": version(name).partition("+")[0]} for name in PACKAGES),
        {"what": "lock (SHA-256)", "value": sha256_of(lock) if lock.exists() else "not there"},
        {"what": "system", "value": f"{platform.system()} {platform.machine()}"},
        {"what": "processor", "value": processor()},
        {"what": "cores", "value": str(os.cpu_count())},
        {"what": "threads of torch", "value": str(torch.get_num_threads())},
    ]
    chapters = [
        {
            "chapter": name,
            "date": content["date"],
            "logs": ", ".join(f"{k} ({v['kind']}, {v['fingerprint'][:8]})" for k, v in content["logs"].items()),
            "seeds": content["config"]["seeds"],
            "runs computed": content["runs"]["computed"],
            "runs reused": content["runs"]["reused"],
        }
        for name, content in chapter_results(config.results_path).items()
    ]
    groups: dict[tuple[str, str, int], list[Any]] = {}
    for stored in list_runs():
        groups.setdefault((stored.config.log, stored.config.model.name, stored.config.model.size), []).append(stored)
    runs = [
        {
            "log": log,
            "model": model,
            "size": size,
            "runs": len(found),
            "parameters": found[0].parameters,
            "seconds of training, median": sorted(r.seconds for r in found)[len(found) // 2],
            "samples/s, median": round(sorted(r.samples_per_second for r in found)[len(found) // 2]),
        }
        for (log, model, size), found in groups.items()
    ]
    return Result(config, environment, chapters, runs, benchmarks())


def benchmarks() -> dict[str, list[dict[str, Any]]]:
    """The stored benchmarks: their figures by a caption that says with which command, when and where."""
    found = {}
    for path in sorted((project_root() / "benchmarks" / "results").glob("*.json")):
        content = json.loads(path.read_text("utf-8"))
        caption = f"{content['command']} ({content['date']}; {content['machine']})"
        found[caption] = content["figures"]
    return found


def totals(result: Result) -> str:
    """How many runs this book computed and reused."""
    computed = sum(row["runs computed"] for row in result.chapters)
    reused = sum(row["runs reused"] for row in result.chapters)
    return f"{computed + reused} trainings: {computed} computed for this book, {reused} reused from the store."


def show_environment(result: Result) -> Shown:
    """Versions and machine."""
    return table(result.environment, "Environment")


def show_chapters(result: Result) -> Shown:
    """What each chapter rests on."""
    return table(result.chapters, "Chapters: logs, seeds, runs")


def show_runs(result: Result) -> Shown:
    """Stored runs, with measured speed."""
    return table(result.runs, "Stored runs by log, model and size: speed measured while training")


def show_benchmarks(result: Result) -> Shown:
    """Stored benchmarks, a table each."""
    tables = [table(rows, caption) for caption, rows in result.benchmarks.items()]
    return Shown("\n\n".join(t.text for t in tables), "".join(t.html for t in tables))
