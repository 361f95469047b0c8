"""How benchmarks are written down: medians with their spread, the machine and the command."""

import platform
import statistics
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from dare_core.files import write_json
from dare_core.training.store import processor


def figure_line(figure: str, values: Sequence[float]) -> dict[str, Any]:
    """One figure of a benchmark from its repeated measurements."""
    size = abs(statistics.median(values))
    digits = 0 if size >= 100 else 3 if size >= 1 else 5
    return {
        "figure": figure,
        "median": round(statistics.median(values), digits),
        "least": round(min(values), digits),
        "most": round(max(values), digits),
        "repeats": len(values),
    }


def write_figures(path: Path, command: str, figures: Sequence[dict[str, Any]]) -> None:
    """Write a benchmark's figures, with date, command and machine."""
    machine = f"{processor()}, {torch.get_num_threads()} threads, {platform.machine()}, torch {torch.__version__}"
    write_json(
        path,
        {
            "date": datetime.now(UTC).date().isoformat(),
            "command": command,
            "machine": machine.partition("+")[0],
            "figures": list(figures),
        },
    )
