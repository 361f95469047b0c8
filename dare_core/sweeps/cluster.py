"""The runs of a sweep on a Ray cluster. A worker gives back the bytes of a run's folder; no disk is shared.

A worker computes in a store of its own. It generates the log of a generated world; the folder of any other log is sent
once. What comes back is stored only if it is, by every hash, the run that was asked for.
"""

import os
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from dare_core.data.generated import generate
from dare_core.data.log_files import log_folder
from dare_core.errors import InputError
from dare_core.files import atomic_folder, locked, remove_folder
from dare_core.sweeps.local import Ended, reason_of, store_of
from dare_core.sweeps.plan import Planned
from dare_core.training.runs import RunStore
from dare_core.training.store import RECORD, ClickRecord, runs_root

RETRIES = 3
"""Times that a run is started again whose worker or node was lost."""
PREFIX = "dare-sweep-"
Files = Mapping[str, bytes]
_held = WeakKeyDictionary[RunStore, str]()
"""Fingerprint of the log that a worker's store has in memory."""


def import_ray() -> Any:
    """Ray, without its usage statistics. Raises InputError where it is not installed."""
    for name in ("RAY_USAGE_STATS_ENABLED", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"):  # the latter only warns otherwise
        os.environ.setdefault(name, "0")
    try:
        import ray
    except ImportError as error:
        raise InputError("A cluster needs Ray: install it with `make env-cluster` (the extra `cluster`).") from error
    return ray


# --- on a worker --------------------------------------------------------------------------------------------


def provide_log(run: Planned, sent: Sequence[Any]) -> None:
    """Store the log of a run: generated, or from the files that were sent."""
    if run.world is not None:
        generate(run.world)
    else:
        with atomic_folder(log_folder(run.config.log)) as folder:
            write_files(folder, import_ray().get(sent[0]))


def train_there(run: Planned, sent: Sequence[Any], device: str, threads: int) -> Files | str:
    """Compute a run on a worker, in a temporary store; returns the files of its folder, or why it failed.

    `sent` : a reference to the files of its log, for a log that is not generated; in a list, so that they are fetched
    only where they are needed
    """
    try:
        with tempfile.TemporaryDirectory(prefix=f"{PREFIX}{os.getpid()}-") as place:
            os.environ["DARE_STORE"] = place
            store = store_of(run.config.log, device, threads)
            if _held.get(store) != run.fingerprint or run.config.samples.split == "time":  # times stay on the disk
                provide_log(run, sent)
                _held[store] = store.log(run.config.log).fingerprint
            if _held[store] != run.fingerprint:
                return f"the worker's log {run.config.log!r} is not that of this machine: are the versions the same?"
            if store.key(run.config) != run.key:
                return "the worker has other code, or another version of PyTorch, than this machine."
            return {path.name: path.read_bytes() for path in store.get(run.config).folder.iterdir()}
    except Exception as error:
        return reason_of(error)


# --- on the machine that asks -------------------------------------------------------------------------------


def write_files(folder: Path, files: Files) -> None:
    """Write files into a folder."""
    for name, content in files.items():
        (folder / name).write_bytes(content)


def receive(key: str, files: Files) -> str:
    """Store the folder of a run. Raises InputError where it is damaged or not that run; then nothing is stored."""
    folder = runs_root() / key
    if set(files) != {RECORD, *ClickRecord.FILES}:
        raise InputError(f"what came back of run {key} is not a run's folder: it holds {', '.join(sorted(files))}.")
    runs_root().mkdir(parents=True, exist_ok=True)
    with locked(folder), tempfile.TemporaryDirectory(dir=runs_root(), prefix=".receiving-") as scratch:
        arrived = Path(scratch) / key
        arrived.mkdir()
        write_files(arrived, files)
        try:
            ClickRecord.read(arrived)
        except InputError as error:
            raise InputError(f"what came back is refused: {str(error).partition(': remove')[0]}.") from error
        remove_folder(folder)  # where there is one, it was damaged
        arrived.rename(folder)
    return ""


@contextmanager
def connected(ray: Any, address: str, needs: Mapping[str, float]) -> Iterator[None]:
    """Connect to a cluster. Raises InputError where there is none, or none of its nodes has what a run needs."""
    host, _, port = address.partition(":")
    try:
        if port.isdecimal():  # at once, where Ray would try for minutes
            socket.create_connection((host, int(port)), 10).close()
        ray.init(address=address, log_to_driver=False, logging_level="error")
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(f"There is no Ray cluster at {address!r} ({reason_of(error)}).") from error
    try:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if not any(all(node.get(name, 0) >= least for name, least in needs.items()) for node in nodes):
            wanted = ", ".join(f"{name} {least:,.0f}" for name, least in needs.items() if least)
            raise InputError(f"No node of the cluster at {address!r} has what a run needs: {wanted}.")
        yield
    finally:
        ray.shutdown()


def on_cluster(runs: Sequence[Planned], address: str, device: str, threads: int) -> Ended:
    """Compute runs on a Ray cluster and store them here.

    A run takes `threads` CPUs, its memory, and a GPU on `cuda`. A failed run stops no other; one whose worker was lost
    is started again. Raises InputError where there is no Ray or no such cluster.
    """
    if not runs:
        return
    ray, gpus = import_ray(), int(device != "cpu")
    needs = {"CPU": threads, "GPU": gpus, "memory": max(run.memory for run in runs)}
    with redirect_stdout(sys.stderr), connected(ray, address, needs):  # Ray's remarks go to standard error
        train = ray.remote(num_cpus=threads, num_gpus=gpus, max_retries=RETRIES, max_calls=0)(train_there)
        names = {run.config.log for run in runs if run.world is None}
        logs = {name: [ray.put({p.name: p.read_bytes() for p in log_folder(name).iterdir()})] for name in names}
        waiting = {}
        for run in runs:
            asked = train.options(memory=run.memory).remote(run, logs.get(run.config.log, []), device, threads)
            waiting[asked] = run.key
        while waiting:
            done = ray.wait(list(waiting), num_returns=1)[0][0]
            key, reason = waiting.pop(done), ""
            try:
                answer = ray.get(done)
                reason = answer if isinstance(answer, str) else receive(key, answer)
            except (ray.exceptions.RayError, InputError) as error:
                reason = reason_of(error)
            yield key, reason
