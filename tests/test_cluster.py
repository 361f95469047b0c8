"""A sweep on a Ray cluster of two nodes, one of which is lost while it computes.

Ray is the extra `cluster`; with CLUSTER_REQUIRED set, it must be there.
"""

import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import psutil
import pytest
from conftest import store_small_log
from test_sweep_command import BY_HAND, TINY, block, write

from dare_core.sweeps.cluster import PREFIX
from dare_core.training.runs import read_run

MEASURED = {"seconds", "samples_per_second", "created"}


def required() -> None:
    """Skip where Ray is not installed, or fail."""
    if importlib.util.find_spec("ray") is None:
        reason = "Ray is not installed: make env-cluster (the extra `cluster`)"
        pytest.fail(reason) if os.environ.get("CLUSTER_REQUIRED") else pytest.skip(reason)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Two nodes of one core; everything that they write lies in a folder with a short name, as sockets need."""
    required()
    with tempfile.TemporaryDirectory(prefix="rc", dir="/tmp", ignore_cleanup_errors=True) as place:
        for name, value in {"RAY_USAGE_STATS_ENABLED": "0", "TMPDIR": place, "DARE_STORE": f"{place}/none"}.items():
            monkeypatch.setenv(name, value)
        from ray.cluster_utils import Cluster

        node = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
        made = Cluster(True, head_node_args=node | {"include_dashboard": False})
        made.second, made.place = made.add_node(**node), Path(place)
        yield made
        made.shutdown()


def wait_until(holds: Callable[[], Any], process: subprocess.Popen, seconds: float = 120) -> Any:
    """The first true value of a function, while a process runs."""
    end = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < end and process.poll() is None, process.communicate()
        time.sleep(0.05)
    return found


def start(path: Path, store: Path, *options: str) -> subprocess.Popen:
    """Start a sweep."""
    command = [sys.executable, "-m", "dare_core.cli", "sweep", str(path), *options]
    environment = os.environ | {"DARE_STORE": str(store), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(sweep: subprocess.Popen) -> str:
    """What a sweep says that ends well."""
    said, wrong = sweep.communicate(timeout=300)
    assert sweep.returncode == 0, said + wrong
    return said


def test_a_node_is_lost_and_every_run_is_there_once(
    cluster: Any, tmp_path: Path, own_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = tmp_path / "local"
    for store in (own_store, local):
        monkeypatch.setenv("DARE_STORE", str(store))
        store_small_log()
    sent = {"logs": ["by_hand"], "models": ["DARE"], "seeds": 1, "settings": BY_HAND}
    path = write(tmp_path, block(), sent, settings=TINY | {"world_users": 200, "epochs": 4})
    sweep = start(path, own_store, "--ray", cluster.address)
    raylet = psutil.Process(
        next(info[0].process.pid for kind, info in cluster.second.all_processes.items() if kind == "raylet")
    )

    def stored() -> set[str]:
        return {folder.name for folder in (own_store / "runs").glob("[0-9a-f]*")}

    def unfinished() -> tuple[set[str], list[psutil.Process]]:
        workers = raylet.children(recursive=True)
        locks = [lock for w in workers for lock in cluster.place.glob(f"{PREFIX}{w.pid}-*/.locks/runs/*.lock")]
        return {lock.stem for lock in locks} - stored(), workers

    wait_until(lambda: unfinished()[0], sweep)
    begun, workers = unfinished()
    cluster.remove_node(cluster.second, allow_graceful=False)
    psutil.wait_procs(workers, 30)
    assert not any(worker.is_running() for worker in workers)
    lost = begun - stored()
    assert lost, "the node was lost while it computed a run"
    said = finish(sweep)
    assert not list(cluster.place.glob(f"{PREFIX}*/runs/*")), "a worker leaves no run"
    assert "5 computed or tried, 0 failed" in said and lost <= stored()

    finish(start(path, local, "--jobs", "1"))
    table, alone = (pl.read_parquet(store / "sweeps" / "grid.parquet") for store in (own_store, local))
    assert set(table["key"]) == stored() and table.height == 5
    assert table.drop(MEASURED).equals(alone.drop(MEASURED))
    for key in table["key"]:
        monkeypatch.setenv("DARE_STORE", str(own_store))
        there = read_run(key)
        monkeypatch.setenv("DARE_STORE", str(local))
        assert np.array_equal(there.test_probability, read_run(key).test_probability)


def test_no_cluster_is_said_at_once(tmp_path: Path, own_store: Path) -> None:
    required()
    sweep = start(write(tmp_path, block()), own_store, "--ray", "127.0.0.1:1")
    _, wrong = sweep.communicate(timeout=120)
    assert sweep.returncode == 2 and "no Ray cluster at '127.0.0.1:1'" in wrong, wrong
    assert len(wrong.strip().splitlines()) == 1, wrong


def test_a_cluster_without_what_a_run_needs_is_refused(cluster: Any, tmp_path: Path, own_store: Path) -> None:
    sweep = start(write(tmp_path, block()), own_store, "--ray", cluster.address, "--device", "cuda")
    _, wrong = sweep.communicate(timeout=120)
    assert sweep.returncode == 2 and "No node of the cluster" in wrong and "GPU 1" in wrong
    assert len(wrong.strip().splitlines()) == 1, wrong
