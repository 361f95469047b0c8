"""`dare sweep`: counts the runs of a grid, or computes what is missing and writes the table of all."""

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from tqdm import tqdm

from dare_core.files import store_root
from dare_core.sweeps.cluster import import_ray, on_cluster
from dare_core.sweeps.grid import Sweep
from dare_core.sweeps.local import on_this_machine
from dare_core.sweeps.plan import Planned, plan, with_keys
from dare_core.sweeps.results import LARGE, SPEEDS, core_hours, write_table
from dare_core.training.devices import usable_device

Say = Callable[[object], None]


def count(title: str, runs: Sequence[Planned], again: int, device: str, threads: int) -> str:
    """What there is, what is missing, and how long that takes."""
    missing = [run for run in runs if not run.stored]
    hours, known = core_hours(missing, device, threads)
    lines = [
        *([title] if title else []),
        f"runs           {len(runs):,}" + (f" ({again:,} listed more than once)" if again else ""),
        f"there already  {len(runs) - len(missing):,}",
        f"not there yet  {len(missing):,}",
        f"{'core' if device == 'cpu' else 'GPU'} hours     {hours:,.1f}: {known:,} runs by the speed of stored runs of "
        f"the same model and size and about as many samples, {len(missing) - known:,} by a rule, {SPEEDS[0]:,} "
        f"samples/s, {SPEEDS[1]:,} with {LARGE} or more per step",
    ]
    if unknown := [run for run in missing if not run.key]:
        logs = ", ".join(sorted({run.log for run in unknown}))
        lines.append(
            f"not generated  worlds of {len(unknown):,} runs ({logs}), which count as not there yet, with every user's "
            "samples: their keys need the worlds"
        )
    return "\n".join(lines)


def sweep(
    grid: Sweep,
    path: Path,
    dry_run: bool,
    jobs: int,
    address: str,
    device: str,
    threads: int,
    out: Path | None,
    say: Say,
) -> int:
    """Compute what is missing of a grid and write its table; returns the exit status, 1 where a run failed.

    `grid`, `path` : the content of the file, and its place; `dry_run` : only count; `jobs`, `device`, `threads` : as
    for `on_this_machine`, 0 threads are those of the file; `address` : of a Ray cluster, empty for this machine;
    `out` : the table, by default in the store by the file's name; `say` : prints
    """
    threads = threads or grid.threads
    if not dry_run:
        _ = import_ray() if address else usable_device(device)  # refused before the work
    planned, again = plan(grid, path, device, threads)
    if dry_run:
        say(count(grid.title, planned, again, device, threads))
        return 0
    runs = {run.key: run for run in with_keys(planned, device, threads)}
    missing = [run for run in runs.values() if not run.stored]
    say(f"{len(runs):,} runs, {len(runs) - len(missing):,} there already")
    on = on_cluster(missing, address, device, threads) if address else on_this_machine(missing, jobs, device, threads)
    with closing(on), tqdm(on, total=len(missing), unit="run", disable=None) as ended:
        failed = {key: reason for key, reason in ended if reason}
    table = out or store_root() / "sweeps" / f"{path.stem}.parquet"
    failed |= write_table([run for run in runs.values() if run.key not in failed], table)
    say(f"{len(missing):,} computed or tried, {len(failed):,} failed; table: {table}")
    for key, reason in failed.items():
        say(f"failed: {runs[key].name}: {reason}")
    return 1 if failed else 0
