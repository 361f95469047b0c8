"""Two trainings of one thread side by side against one of two threads, at 2,048 samples per step and the table sizes of
Taobao: which computes more samples per second.

    .venv/bin/python benchmarks/threads.py

The log is that of `taobao_training.py`. Processes take turns: a round is a number of steps of both alone-running
processes of one thread at once, then as many of the one with two threads. Written to `benchmarks/results/threads.json`.
"""

import time
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from common import figure_line, write_figures
from taobao_training import BATCH, our_steps, taobao_sized

from dare_core.config import SampleConfig
from dare_core.data.samples import make_samples
from dare_core.schedule import running_on
from dare_core.training.runs import counts_of

OUT = Path(__file__).parent / "results" / "threads.json"
ROUNDS, STEPS, WARM = 7, 25, 5


def serve(pipe: Connection, threads: int) -> None:
    """Train so many steps as the pipe asks for, and answer."""
    log = taobao_sized()
    with running_on(threads):
        steps = our_steps(make_samples(log, SampleConfig(), 1)["train"], counts_of(log, SampleConfig()))
        while count := pipe.recv():
            for _ in range(count):
                next(steps)
            pipe.send(True)


def seconds(pipes: list[Any], count: int) -> float:
    """Time in which several processes compute so many steps each, all at once."""
    started = time.perf_counter()
    for pipe in pipes:
        pipe.send(count)
    for pipe in pipes:
        pipe.recv()
    return time.perf_counter() - started


def main() -> None:
    """Measure and write."""
    context, pipes, processes = get_context("spawn"), [], []
    for threads in (1, 1, 2):
        ours, theirs = context.Pipe()
        processes.append(context.Process(target=serve, args=(theirs, threads), daemon=True))
        processes[-1].start()
        pipes.append(ours)
    alone, together = pipes[:2], pipes[2:]
    for group in (alone, together):
        seconds(group, WARM)
    one, two, ratio = [], [], []
    for _ in range(ROUNDS):
        one.append(2 * STEPS * BATCH / seconds(alone, STEPS))
        two.append(STEPS * BATCH / seconds(together, STEPS))
        ratio.append(one[-1] / two[-1])
    figures = [
        figure_line("two trainings of one thread: samples/s of both", one),
        figure_line("one training of two threads: samples/s", two),
        figure_line("the former over the latter", ratio),
    ]
    for figure in figures:
        print(figure)
    write_figures(OUT, "python benchmarks/threads.py", figures)
    for pipe in pipes:
        pipe.send(0)


if __name__ == "__main__":
    main()
