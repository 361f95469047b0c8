"""Time of a training step of 66 samples, as with the recipe on small logs, beside an older version of the package.

    git worktree add ../before c897d04
    .venv/bin/python benchmarks/small_batches.py --before ../before

Each version runs in a process of its own, on one thread. Both have made their models before the first round; then
versions take turns with every model, so that a change of the machine's speed meets both. Figures are medians over
the rounds: milliseconds a step, the whole training loop but for validation. The result is written to
`benchmarks/results/small_batches.json`.
"""

import argparse
import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from dare_core.config import ModelConfig, RunConfig, SampleConfig, TrainingConfig
from dare_core.data.logs import load

try:
    from dare_core.data.samples import Samples, make_samples
    from dare_core.training.loop import train
    from dare_core.training.runs import counts_of

    try:
        from dare_core.models.zoo import build_model
    except ImportError:
        from dare_core.models.zoo import build_model
except ModuleNotFoundError:  # an older version, whose modules lay in one folder
    from dare_core.runs import counts_of
    from dare_core.samples import Samples, make_samples

    from dare_core.models import build_model
    from dare_core.training import train

OUT = Path(__file__).parent / "results" / "small_batches.json"
MODELS = "DARE,TWIN,DIN,TWIN-4E,TWIN (w/ proj.),SDIM"


def part(samples: Samples, targets: int) -> Samples:
    """The first targets of a split."""
    keep = ("users", "row", "start", "items", "categories", "new", "seen")
    return dataclasses.replace(samples, **{name: getattr(samples, name)[:targets] for name in keep})


def serve() -> None:
    """Answer lines of model, batch size and steps with the milliseconds a step takes, of this process's package."""
    log = load("complete_journey")
    whole = make_samples(log, SampleConfig(), 1)
    print("ready", flush=True)
    for line in sys.stdin:
        name, batch_size, steps = line.rstrip("\n").split("\t")
        training = TrainingConfig(epochs=1, validations_per_epoch=1, batch_size=int(batch_size))
        config = RunConfig(log=log.card.name, model=ModelConfig(name=name), training=training)
        counts = counts_of(log, config.samples)
        splits = {"train": part(whole["train"], int(steps) * round(int(batch_size) / 3))}
        splits |= {split: part(whole[split], 50) for split in ("validation", "test")}
        trained = train(config, splits, lambda c=config, n=counts: build_model(c.model, n, c.training, 1), False)
        print(1_000 * trained.seconds / trained.history[-1].step, flush=True)


def start(package: Path) -> "subprocess.Popen[str]":
    """A process that serves the package of a checkout."""
    ours = {"PYTHONPATH": str(package), "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    command = [sys.executable, str(Path(__file__).resolve()), "--serve"]
    process = subprocess.Popen(command, env=os.environ | ours, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    while process.stdout.readline().strip() != "ready":
        pass
    return process


def ask(process: "subprocess.Popen[str]", name: str, batch_size: int, steps: int) -> float:
    """Milliseconds a step."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(f"{name}\t{batch_size}\t{steps}\n")
    process.stdin.flush()
    return float(process.stdout.readline())


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="a checkout of an older version")
    parser.add_argument("--models", default=MODELS)
    parser.add_argument("--batch-size", type=int, nargs="*", default=[66])
    parser.add_argument("--samples", type=int, default=9_900, help="training samples a round, at least 5 steps")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        return serve()
    from common import figure_line, write_figures  # of the present version alone

    versions = {"now": start(Path(__file__).resolve().parents[1])}
    if options.before:
        versions["before"] = start(options.before.resolve())
    figures: list[dict[str, Any]] = []
    for batch_size in options.batch_size:
        steps = max(5, options.samples // batch_size)
        times: dict[tuple[str, str], list[float]] = {}
        for turn in range(options.rounds + 1):
            for name in options.models.split(","):
                for version, process in versions.items():
                    value = ask(process, name, batch_size, steps)
                    if turn:  # the first turn compiles and warms caches
                        times.setdefault((name, version), []).append(value)
        for name in options.models.split(","):
            what = f"{name}, batch {batch_size}"
            figures += [figure_line(f"{what}, {v}: ms per step", times[name, v]) for v in versions]
            if options.before:
                ratios = [a / b for a, b in zip(times[name, "before"], times[name, "now"], strict=True)]
                figures.append(figure_line(f"{what}: before over now", ratios))
    for line in figures:
        print(f"{line['figure']:50} {line['median']:>8,} ({line['least']:,} to {line['most']:,})", flush=True)
    for process in versions.values():
        process.terminate()
    write_figures(options.out, "python benchmarks/small_batches.py" + " --before PATH" * bool(options.before), figures)


if __name__ == "__main__":
    main()
