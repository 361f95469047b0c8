"""The gradient of an embedding table: our compiled loop beside torch's own backward pass.

    .venv/bin/python benchmarks/embedding_gradient.py

One batch of histories on tables of several sizes; the two take turns. Written to
`benchmarks/results/embedding_gradient.json`, which the Reproducibility chapter shows.
"""

import statistics
import time
from pathlib import Path

import torch
from common import figure_line, write_figures
from torch.nn import functional

from dare_core.models.kernels.lookup import lookup

OUT = Path(__file__).parent / "results" / "embedding_gradient.json"
HISTORIES, LENGTH, SIZE, ROUNDS = 171, 200, 16, 15


def main() -> None:
    """Measure and write."""
    figures = []
    for rows in (5_000, 68_151, 1_000_000):
        table = torch.zeros(rows, SIZE, requires_grad=True)
        ids = torch.randint(0, rows, (HISTORIES, LENGTH), dtype=torch.int32)
        gradient = torch.randn(HISTORIES, LENGTH, SIZE)
        ways = {"ours": lambda t, i: lookup([t], [[i]])[0][0], "torch": lambda t, i: functional.embedding(i, t)}
        times: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(ROUNDS + 2):
            for name, read in ways.items():
                table.grad = None
                started = time.perf_counter()
                read(table, ids).backward(gradient)
                if turn >= 2:
                    times[name].append(1e3 * (time.perf_counter() - started))
        ratios = [b / a for a, b in zip(times["ours"], times["torch"], strict=True)]
        for name, values in times.items():
            figures.append(figure_line(f"{rows:,} rows, {HISTORIES * LENGTH:,} ids, {name}: milliseconds", values))
        figures.append(figure_line(f"{rows:,} rows: torch's time over ours", ratios))
        print(f"{rows:,} rows: ours {statistics.median(times['ours']):.2f} ms, ratio {statistics.median(ratios):.1f}")
    write_figures(OUT, "python benchmarks/embedding_gradient.py", figures)


if __name__ == "__main__":
    main()
