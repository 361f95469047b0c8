"""Training speed of the models on Complete Journey: samples a second, validation not counted.

    .venv/bin/python benchmarks/training_speed.py

Models take turns, so that a change of the machine's speed meets all of them; figures are medians over the
rounds. The result is written to `benchmarks/results/training_speed.json`, which the Reproducibility chapter
shows.
"""

import argparse
import dataclasses
from pathlib import Path

from common import figure_line, write_figures

from dare_core.config import ModelConfig, RunConfig, SampleConfig, TrainingConfig
from dare_core.data.logs import load
from dare_core.data.samples import Samples, make_samples
from dare_core.models.zoo import build_model
from dare_core.training.loop import train
from dare_core.training.runs import counts_of

OUT = Path(__file__).parent / "results" / "training_speed.json"


def part(samples: Samples, targets: int) -> Samples:
    """The first targets of a split."""
    keep = ("users", "row", "start", "items", "categories", "new", "seen")
    return dataclasses.replace(samples, **{name: getattr(samples, name)[:targets] for name in keep})


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default="DARE,TWIN,DIN")
    parser.add_argument("--size", type=int, default=16)
    parser.add_argument("--batch-size", type=int, nargs="*", default=[512, 2048])
    parser.add_argument("--targets", type=int, default=6_000, help="training targets a round")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()

    log = load("complete_journey")
    splits = make_samples(log, SampleConfig(), 1)
    splits = {"train": part(splits["train"], options.targets)} | {
        name: part(splits[name], 50) for name in ("validation", "test")
    }
    speeds: dict[tuple[str, int], list[float]] = {}
    for turn in range(options.rounds + 1):
        for name in options.models.split(","):
            for batch_size in options.batch_size:
                config = RunConfig(
                    log=log.card.name,
                    model=ModelConfig(name=name, size=options.size),
                    training=TrainingConfig(epochs=1, validations_per_epoch=1, batch_size=batch_size),
                    seed=turn,
                )
                counts = counts_of(log, config.samples)
                trained = train(
                    config, splits, lambda c=config, n=counts: build_model(c.model, n, c.training, c.seed), False
                )
                if turn:  # the first turn warms caches
                    speeds.setdefault((name, batch_size), []).append(trained.samples_per_second)
    figures = [
        figure_line(f"{name}, size {options.size}, batch {batch_size}: samples/s", values)
        for (name, batch_size), values in speeds.items()
    ]
    for line in figures:
        print(f"{line['figure']:50} {line['median']:>8,} ({line['least']:,} to {line['most']:,})")
    write_figures(OUT, "python benchmarks/training_speed.py", figures)


if __name__ == "__main__":
    main()
