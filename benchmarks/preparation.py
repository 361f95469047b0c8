"""Preparation at paper scale: seconds, rows a second, memory and size of the store, from raw file to samples.

    .venv/bin/python benchmarks/preparation.py --rows 100_000_000
    .venv/bin/python benchmarks/preparation.py --official ../DARE

A file in Taobao's format is generated (or `--file` is taken), prepared, and cut into samples with the published
protocol; every measurement is a process of its own, timed from its start to its end, with the peak of its
resident memory. `--official` names your own clone of the published code: its preprocessing then takes turns
with ours on one generated file of `--official-rows` rows; nothing is written into the clone. The result is written
to `benchmarks/results/preparation.json`, which the Reproducibility chapter shows.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from dare_core.data.generated_file import write_taobao
from dare_core.data.intake.sources import scratch_folder
from dare_core.errors import InputError

# Nothing here may import torch: a process starts with its parent's memory, which would count as its own.
OUT = Path(__file__).parent / "results" / "preparation.json"
OURS = """
import json, sys, time
from dare_core.config import SampleConfig
from dare_core.data.logs import prepare
from dare_core.data.samples import make_samples

start = time.perf_counter()
log = prepare("taobao", sys.argv[1], name="measured")
prepared = time.perf_counter()
splits = make_samples(log, SampleConfig(), 1)
parts = {"prepare": prepared - start, "samples": time.perf_counter() - prepared}
print(json.dumps(parts | {"rows": log.card.rows_read, "number": sum(split.size for split in splits.values())}))
"""


@dataclass(frozen=True)
class Measured:
    """One process: its whole time, the time of all processors, its peak memory, what it printed."""

    seconds: float
    processor_seconds: float
    peak: float  # GB (10^9 bytes), resident
    printed: str


def measure(command: list[str], folder: Path, store: Path) -> Measured:
    """Run a command in a folder to its end. Raises InputError where it fails."""
    start = time.perf_counter()
    environment = os.environ | {"DARE_STORE": str(store)}
    with (folder / "printed.txt").open("w+") as printed:
        process = subprocess.Popen(command, cwd=folder, stdout=printed, stderr=subprocess.STDOUT, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - start
        printed.seek(0)
        text = printed.read()
    if process.returncode:
        last = text.strip().splitlines()[-1:] or ["no message"]
        raise InputError(f"'{command[1]}' ended with status {process.returncode} ({last[0]}): see what it needs.")
    unit = 1 if sys.platform == "darwin" else 1024
    return Measured(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit / 1e9, text)


def prepare_ours(file: Path, folder: Path) -> tuple[Measured, dict[str, float], float]:
    """One preparation by this project: the process, what it measured itself, GB of the stored log."""
    store = folder / "store"
    measured = measure([sys.executable, "-c", OURS, str(file)], folder, store)
    size = sum(path.stat().st_size for path in (store / "logs/measured").iterdir()) / 1e9
    return measured, json.loads(measured.printed.splitlines()[-1]), size


def prepare_official(file: Path, folder: Path, clone: Path) -> Measured:
    """One preparation by the published code, which reads and writes beside the folder in which it is started."""
    start = folder / "official" / "preprocess"
    data = folder / "official" / "data" / "taobao"
    start.mkdir(parents=True, exist_ok=True)
    data.mkdir(parents=True, exist_ok=True)
    for left in data.iterdir():  # it would reuse the ids of the round before
        left.unlink()
    (data / "UserBehavior.csv").symlink_to(file)
    return measure([sys.executable, str(clone / "preprocess" / "taobao_v4.py")], start, folder / "store")


def count(rows: int) -> str:
    """Millions of rows, short."""
    return f"{rows / 1e6:g} M rows"


def our_figures(file: Path, folder: Path, rounds: int) -> dict[str, list[float]]:
    """Figures of this project alone on one file."""
    found: dict[str, list[float]] = {}
    for _ in range(rounds):
        measured, parts, size = prepare_ours(file, folder)
        what = f"ours, {count(int(parts['rows']))}"
        for name, value in (
            (f"{what}: raw file to samples, s", measured.seconds),
            (f"{what}: of these, reading and storing, s", parts["prepare"]),
            (f"{what}: of these, samples, s", parts["samples"]),
            (f"{what}: time of all processors together, s", measured.processor_seconds),
            (f"{what}: rows/s", parts["rows"] / measured.seconds),
            (f"{what}: peak resident memory, GB", measured.peak),
            (f"{what}: size of the store, GB", size),
            (f"{what}: number of samples", parts["number"]),
        ):
            found.setdefault(name, []).append(value)
    return found


def paired_figures(file: Path, folder: Path, clone: Path, rounds: int) -> dict[str, list[float]]:
    """Figures of both, which take turns on one file."""
    found: dict[str, list[float]] = {}
    for _ in range(rounds):
        ours, parts, _ = prepare_ours(file, folder)
        published = prepare_official(file, folder, clone)
        rows = parts["rows"]
        turns = f"{count(int(rows))}, in turns"
        for name, measured in (("ours", ours), ("published code", published)):
            found.setdefault(f"{name}, {turns}: rows/s", []).append(rows / measured.seconds)
            found.setdefault(f"{name}, {turns}: peak resident memory, GB", []).append(measured.peak)
        ratio = f"ours / published code, {turns}: rows/s"
        found.setdefault(ratio, []).append(published.seconds / ours.seconds)
    return found


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5_000_000, help="rows of the generated file")
    parser.add_argument("--file", type=Path, help="a file in Taobao's format, instead of a generated one")
    parser.add_argument("--official", type=Path, help="your own clone of the published code")
    parser.add_argument("--official-rows", type=int, default=5_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if options.official and not (options.official / "preprocess" / "taobao_v4.py").exists():
        parser.error(f"'{options.official}' holds no preprocess/taobao_v4.py: name a clone of the published code")

    with scratch_folder() as folder:
        file = options.file.resolve() if options.file else folder / "UserBehavior.csv"
        if not options.file:
            write_taobao(file, options.rows)
        found = our_figures(file, folder, options.rounds)
        if options.official:
            shared = folder / "shared.csv"
            write_taobao(shared, options.official_rows)
            found |= paired_figures(shared, folder, options.official.resolve(), options.rounds)

    from common import figure_line, write_figures

    figures = [figure_line(name, values) for name, values in found.items()]
    for line in figures:
        print(f"{line['figure']:70} {line['median']:>12,} ({line['least']:,} to {line['most']:,})")
    command = "python benchmarks/preparation.py" + (" --file FILE" if options.file else f" --rows {options.rows}")
    write_figures(OUT, command + " --official PATH" * bool(options.official), figures)


if __name__ == "__main__":
    main()
