"""The search stage alone: time for one user and target, and its ratio to the time of reading the same bytes.

    .venv/bin/python benchmarks/search_stage.py

Sizes, and searching and reading, take turns; figures are medians over the rounds. With two threads each
searches its share of the users. The result is written to `benchmarks/results/search_stage.json`, which the
Reproducibility chapter shows.
"""

import argparse
import statistics
from pathlib import Path

from common import figure_line, write_figures

from dare_core.studies.search_stage import measure

OUT = Path(__file__).parent / "results" / "search_stage.json"


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lengths", type=int, nargs="*", default=[1_000, 10_000, 100_000])
    parser.add_argument("--sizes", type=int, nargs="*", default=[128, 64, 32, 16])
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    figures = []
    for threads in options.threads:
        for length in options.lengths:
            for line in measure(length, options.sizes, options.rounds, threads):
                what = f"N = {length:,}, K_A = {line.size}, {threads} thread{'s' * (threads > 1)}"
                ratios = list(line.searching / line.reading)
                figures.append(figure_line(f"{what}: search, microseconds", list(line.searching)))
                figures.append(figure_line(f"{what}: search over reading its bytes", ratios))
                print(f"{what}: {statistics.median(line.searching):.1f} µs, {statistics.median(ratios):.2f} x reading")
    write_figures(OUT, "python benchmarks/search_stage.py", figures)


if __name__ == "__main__":
    main()
