"""Training speed at the size of Taobao's tables and on Complete Journey, beside the authors' published code.

    .venv/bin/python benchmarks/taobao_training.py --official PATH_OF_YOUR_CLONE_OF_THE_PUBLISHED_CODE

DARE, size 16, 2,048 samples a step. The clicks of the first log are generated: random items whose popularity falls
as 1 / (rank + 500) over Taobao's 4,068,790 items, so that of 100 million clicks the first item gets about 20,000
and the last about 2; `--log` takes a prepared log in its place. Ours and the published code take turns on the
same samples; each round is a few training steps from samples in memory (ours) or in the published form (theirs) to
updated weights, and figures are medians over the rounds. Without `--official` ours is measured alone. Written to
`benchmarks/results/taobao_training.json`, which the Reproducibility chapter shows.
"""

import argparse
import importlib
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import figure_line, write_figures

from dare_core.config import ModelConfig, SampleConfig, TrainingConfig
from dare_core.data.logs import Card, Log, load
from dare_core.data.samples import Samples, make_samples
from dare_core.errors import InputError
from dare_core.models.embeddings import Counts
from dare_core.models.zoo import build_model
from dare_core.published.config import published_arguments
from dare_core.published.samples import training_tables, write_rows
from dare_core.schedule import running_on
from dare_core.training.loop import batches
from dare_core.training.optimizers import Steps
from dare_core.training.runs import counts_of

OUT = Path(__file__).parent / "results" / "taobao_training.json"
ITEMS, CATEGORIES = 4_068_790, 9_407
BATCH = 2_048
MODEL = ModelConfig(name="DARE", size=16)
TRAINING = TrainingConfig(batch_size=BATCH)


def taobao_sized(users: int = 8_000, clicks: int = 303) -> Log:
    """A log of random clicks on as many items and categories as Taobao's."""
    rng = np.random.default_rng(1)

    def draw(number: int, offset: float, size: int) -> np.ndarray:
        cumulative = np.cumsum(1 / (np.arange(number) + offset))
        return np.searchsorted(cumulative / cumulative[-1], rng.random(size)).clip(max=number - 1)

    names = rng.permutation(ITEMS) + 1
    item_category = np.concatenate([[0], draw(CATEGORIES, 20, ITEMS) + 1]).astype(np.int32)
    items = names[draw(ITEMS, 500, users * clicks)].astype(np.int32)
    card = Card(
        name="taobao_sized", title="Random clicks", kind="generated log", source="this benchmark", terms="none",
        sha256="", rows_read=len(items), rows_kept=len(items), users=users, items=ITEMS, categories=CATEGORIES,
        filters=[], created_with={}, fingerprint="taobao_sized",
    )  # fmt: skip
    return Log(card, items, item_category[items], np.arange(users + 1, dtype=np.int64) * clicks, item_category)


def our_steps(samples: Samples, counts: Counts) -> Iterator[None]:
    """Train with ours, a step each time it is asked."""
    model = build_model(MODEL, counts, TRAINING, 1)
    steps = Steps(model, TRAINING, 10_000, row_wise=True)
    generator = torch.Generator().manual_seed(1)
    while True:
        for index in batches(torch.randperm(len(samples), generator=generator), round(BATCH / 3), True):
            batch = samples.batch(index)
            steps.prepare(batch)
            main, auxiliary = model.losses(model.compute(batch))
            (main + auxiliary).backward()
            model.embeddings.combine_gradients()
            steps.step()
            yield


def published_steps(path: Path, samples: Samples, counts: Counts, folder: Path) -> Iterator[None]:
    """Train with a clone of the published code, as its own loop does, from a file of its own form."""
    sys.path.insert(0, str(path))
    try:
        model_class = importlib.import_module("model.din_pytorch").DIN
        dataset_class = importlib.import_module("dataset").SeqRecDataset
    except ImportError as error:
        raise InputError(f"{path} is not a clone of the published code ({error}).") from error
    file = folder / f"{counts.items}.npy"
    write_rows(file, next(training_tables(samples, 1)).take(slice(0, 10 * BATCH)))
    dataset = dataset_class(str(file), BATCH, max_length=counts.history)
    model = model_class(**published_arguments(MODEL, counts))
    for name, parameter in model.named_parameters():
        if "bias" not in name:
            torch.nn.init.normal_(parameter, 0.0, TRAINING.initial_scale)
    optimizer = torch.optim.Adam(model.parameters(), lr=TRAINING.learning_rate)
    dense = [p for name, p in model.named_parameters() if "bias" not in name and "embedding" not in name]
    while True:
        dataset.reset()
        for batch in dataset:
            _, loss, _ = model(batch)
            loss = loss + TRAINING.l2 * sum(parameter.square().sum() for parameter in dense)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()
            yield


def speed(steps: Iterator[None], count: int) -> float:
    """Samples a second over some steps."""
    started = time.perf_counter()
    for _ in range(count):
        next(steps)
    return count * BATCH / (time.perf_counter() - started)


def peak_memory() -> float:
    """GiB that this process has taken at most so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def measure(what: str, log: Log, rule: Any, options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Figures of one log."""
    config = SampleConfig(negative_rule=rule)
    samples, counts = make_samples(log, config, 1)["train"], counts_of(log, config)
    figures = [figure_line(f"{what}, ours, before training: peak memory, GiB", [peak_memory()])]
    ways: dict[str, tuple[Callable[[], Iterator[None]], int]] = {
        "ours": (lambda: our_steps(samples, counts), options.steps)
    }
    if options.official:
        ways["published code"] = (
            lambda: published_steps(options.official, samples, counts, folder),
            options.official_steps,
        )
    running: dict[str, Iterator[None]] = {}
    for name, (start, count) in ways.items():
        running[name] = start()
        speed(running[name], 5 * count if name == "ours" else 1)  # warms caches, touches memory
        if name == "ours":
            figures.append(figure_line(f"{what}, ours: peak memory, GiB", [peak_memory()]))
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.rounds):
        for name, (_, count) in ways.items():
            speeds[name].append(speed(running[name], count))
    figures += [figure_line(f"{what}, {name}: samples/s", values) for name, values in speeds.items()]
    if options.official:
        ratios = [a / b for a, b in zip(*speeds.values(), strict=True)]
        figures.append(figure_line(f"{what}: ours over the published code", ratios))
    for line in figures:
        print(f"{line['figure']:80} {line['median']:>10,} ({line['least']:,} to {line['most']:,})", flush=True)
    return figures


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--official", type=Path, help="your clone of the authors' published code")
    parser.add_argument("--log", help="a prepared log in place of the generated one")
    parser.add_argument("--small", default="complete_journey", help="a prepared log with small tables; '' for none")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=12, help="our steps a round")
    parser.add_argument("--official-steps", type=int, default=2, help="the published code's steps a round")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    figures: list[dict[str, Any]] = []
    with running_on(torch.get_num_threads()), tempfile.TemporaryDirectory() as folder:
        # The small one first: the peak memory of a process never falls.
        if options.small:
            figures += measure(options.small, load(options.small), "unclicked", options, Path(folder))
        if options.log:
            figures += measure(options.log, load(options.log), "unclicked", options, Path(folder))
        else:
            figures += measure("Taobao's table sizes", taobao_sized(), "any", options, Path(folder))
    given = (f" --log {options.log}" if options.log else "") + (" --official PATH" if options.official else "")
    write_figures(options.out, f"python benchmarks/taobao_training.py{given}", figures)


if __name__ == "__main__":
    main()
