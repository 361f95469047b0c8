"""`dare sweep`: what a file declares, what is counted, computed, listed as failed and refused."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml
from conftest import make_log, store_small_log
from test_cli import dare

from dare_core.errors import InputError
from dare_core.files import sha256_of
from dare_core.sweeps.cluster import receive, train_there
from dare_core.sweeps.grid import Block, read_sweep
from dare_core.sweeps.local import on_this_machine
from dare_core.sweeps.plan import plan, with_keys
from dare_core.training.runs import read_run
from dare_core.training.store import runs_root

TINY = {"world_users": 40, "epochs": 1, "size": 4, "history": 50, "shortest_user": 60, "targets": 3}
BY_HAND = {"history": 20, "targets": 4, "spacing": 3, "shortest_user": 25, "size": 4, "epochs": 1}


def write(folder: Path, *runs: dict, settings: dict = TINY, name: str = "grid", **further: object) -> Path:
    """A sweep's file."""
    path = folder / f"{name}.yml"
    path.write_text(yaml.safe_dump({"settings": settings, "runs": list(runs), **further}), "utf-8")
    return path


def keys_of(path: Path) -> set[str]:
    """Of the runs of a file, whose worlds are generated."""
    return {run.key for run in plan(read_sweep(path), path, "cpu", 1)[0]}


def block(**changes: object) -> dict:
    """Two models and two worlds; four runs."""
    return {"logs": ["generated"], "models": ["TWIN", "DARE"], "seeds": 2} | changes


def test_a_block_is_a_cross_product(tmp_path: Path) -> None:
    varied = {"attention_size": [2, 4], "top_k": [5, 10], "learning_rate": [0.003]}
    read = read_sweep(write(tmp_path, block(seeds=[4, 7], vary=varied)))
    assert read.runs[0].seeds == [4, 7] and Block(**block()).seeds == [1, 2]
    changes = read.runs[0].changes
    assert len(changes) == 4 and changes[1] == {"attention_size": 2, "top_k": 10, "learning_rate": 0.003}
    assert Block(**block()).changes == [{}]


def test_a_run_listed_again_counts_once_and_no_world_is_generated(tmp_path: Path, own_store: Path) -> None:
    same = block(models=["DARE"], vary={"attention_size": [2], "top_k": [20]})  # 20 is the setting's own
    path = write(tmp_path, block(), block(models=["DARE"]), same, block(models=["DARE"], vary={"attention_size": [2]}))
    runs, again = plan(read_sweep(path), path, "cpu", 1)
    assert (len(runs), again) == (6, 4) and not own_store.exists()
    assert {run.key for run in runs} == {""} and {run.samples for run in runs} == {40 * 3 * 3}
    keyed = list(with_keys(runs, "cpu", 1))
    assert len({run.key for run in keyed}) == 6 and len({run.fingerprint for run in keyed}) == 2
    assert [run.config.model for run in keyed] == [run.config.model for run in runs]
    again_planned, _ = plan(read_sweep(path), path, "cpu", 1)
    assert [run.key for run in again_planned] == [run.key for run in keyed], "known now, without generating"


def test_counted_computed_and_found_again(tmp_path: Path, own_store: Path, monkeypatch, capsys) -> None:
    """The keys are those of `dare train`; two jobs give what one gives."""
    arguments = [part for name, value in TINY.items() for part in ("-p", f"{name}={value}")]
    trained = dare(monkeypatch, capsys, "train", "--log", "generated", "--model", "TWIN", *arguments)[1].split()[1]
    path = write(tmp_path, block(), title="A title")
    status, out, _ = dare(monkeypatch, capsys, "sweep", str(path), "--dry-run")
    lines = {line.split("  ")[0]: line for line in out.splitlines()}
    assert status == 0 and out.startswith("A title\n") and "runs           4" in out
    assert lines["there already"].endswith(" 1") and lines["not there yet"].endswith(" 3")
    assert (
        "worlds of 2 runs (generated)" in out
        and "hours" in out
        and "1 runs by the speed" in out
        and "2 by a rule" in out
    )
    status, out, err = dare(
        monkeypatch, capsys, "sweep", str(path), "--jobs", "2", "--out", str(tmp_path / "t.parquet")
    )
    assert status == 0 and "4 runs, 1 there already" in out and "0 failed" in out and "%" not in err
    table = pl.read_parquet(tmp_path / "t.parquet")
    assert table["key"][0] == trained and table.height == 4 == len(set(table["key"]))
    assert table["model"].to_list() == ["TWIN", "DARE", "TWIN", "DARE"] and table["world_seed"].to_list() == [
        1,
        1,
        2,
        2,
    ]
    assert set(table["attention_size"]) == {4} and set(table["top_k"]) == {20} and set(table["threads"]) == {1}
    best = read_run(trained).best
    assert table["validation_auc"][0] == best.auc and table["best_step"][0] == best.step
    hashes = {key: sha256_of(runs_root() / key / "arrays.safetensors") for key in table["key"]}
    status, out, _ = dare(monkeypatch, capsys, "sweep", str(path))
    assert status == 0 and "4 there already" in out and (own_store / "sweeps" / "grid.parquet").is_file()
    assert "hours     0.0: 0 runs" in dare(monkeypatch, capsys, "sweep", str(path), "--dry-run")[1]
    more = write(tmp_path, block(seeds=3), name="more")
    assert "2 runs by the speed" in dare(monkeypatch, capsys, "sweep", str(more), "--dry-run")[1]
    monkeypatch.setenv("DARE_STORE", str(tmp_path / "other"))
    assert dare(monkeypatch, capsys, "sweep", str(path), "--jobs", "1")[0] == 0
    assert {key: sha256_of(runs_root() / key / "arrays.safetensors") for key in hashes} == hashes
    assert dare(monkeypatch, capsys, "sweep", str(path), "--dry-run", "--threads", "2")[1].count("already  0")


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_failed_runs_are_listed_and_stop_no_other(jobs: str, tmp_path: Path, monkeypatch, capsys) -> None:
    store_small_log()
    longest = {"shortest_user": int(np.diff(make_log().offsets).max()), "targets": 1}  # one user, one target
    small = {"logs": ["by_hand"], "models": ["DARE"], "seeds": 1}
    path = write(tmp_path, small | {"models": ["TWIN"], "settings": longest}, small, settings=BY_HAND)
    status, out, _ = dare(monkeypatch, capsys, "sweep", str(path), "--jobs", jobs, "--out", str(tmp_path / "t.parquet"))
    assert status == 1 and "1 failed" in out
    assert [line for line in out.splitlines() if line.startswith("failed:")] == [
        "failed: TWIN on by_hand, seed 1: Log 'by_hand' gives 1 training targets: too few to train on."
    ]
    assert pl.read_parquet(tmp_path / "t.parquet")["model"].to_list() == ["DARE"]


def die(run: object) -> None:
    os._exit(1)


def test_a_process_that_dies_fails_what_is_left(tmp_path: Path, monkeypatch) -> None:
    store_small_log()
    path = write(tmp_path, {"logs": ["by_hand"], "models": ["DARE"], "seeds": 3}, settings=BY_HAND)
    runs, _ = plan(read_sweep(path), path, "cpu", 1)
    monkeypatch.setattr("dare_core.sweeps.local.partial", lambda function, **_: die)
    ended = list(on_this_machine(runs, 2, "cpu", 1))
    assert {key for key, _ in ended} == {run.key for run in runs} and all("--jobs" in reason for _, reason in ended)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("runs: [{logs: [generated], modles: [DARE]}]", "runs.0.mod"),
        ("runs: [{logs: [generated], models: [DARE], seed: 3}]", "runs.0.seed"),
        ("tread: 2\nruns: [{logs: [generated], models: [DARE]}]", "'tread'"),
        ("runs: []", "'runs'"),
        ("runs: [{logs: [generated], models: [DARE], seeds: many}]", "runs.0.seeds"),
        ("runs: [{logs: [generated], models: [DARE], seeds: 0}]", "runs.0.seeds"),
        ("threads: 0\nruns: [{logs: [generated], models: [DARE]}]", "threads"),
        ("runs: [{logs: [generated], models: [DAER]}]", "runs.0: There is no model 'DAER'. Did you mean 'DARE'"),
        ("runs: [{logs: [nowhere], models: [DARE]}]", "runs.0: there is no log 'nowhere'"),
        ("settings: {sise: 4}\nruns: [{logs: [generated], models: [DARE]}]", "There is no parameter 'sise'"),
        ("settings: {seeds: 4}\nruns: [{logs: [generated], models: [DARE]}]", "'seeds'"),
        ("settings: {size: big}\nruns: [{logs: [generated], models: [DARE]}]", "size"),
        ("runs: [{logs: [generated], models: [DARE], vary: {topk: [4]}}]", "nearest: top_k"),
        ("runs: [{logs: [generated], models: [DARE], vary: {seed: [4]}}]", "'seed' is no setting"),
        ("runs: [{logs: [generated], models: [DARE], vary: {top_k: []}}]", "runs.0.vary.top_k"),
        ("runs: [{logs: [generated], models: [DARE], vary: {top_k: [0]}}]", "runs.0: vary: 'top_k'"),
        ("runs: [{logs: [generated], models: [TWIN], vary: {attention_size: [4]}}]", "one table for attention"),
        ("runs: [", "not a YAML file"),
        ("7", "grid.yml"),
    ],
)
def test_a_bad_file_is_one_sentence(
    content: str, says: str, tmp_path: Path, own_store: Path, monkeypatch, capsys
) -> None:
    path = tmp_path / "grid.yml"
    path.write_text(content, "utf-8")
    status, _, err = dare(monkeypatch, capsys, "sweep", str(path))
    assert status == 2 and says in err and str(path) in err and not (own_store / "runs").exists()
    assert len(err.strip().splitlines()) == 1, err


def test_an_interrupted_sweep_goes_on(tmp_path: Path, own_store: Path, monkeypatch, capsys) -> None:
    path = write(tmp_path, block(models=["DARE"], seeds=[1], vary={"top_k": list(range(1, 41))}))
    command = [sys.executable, "-m", "dare_core.cli", "sweep", str(path), "--jobs", "2"]
    sweep = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 120
    while not list((own_store / "runs").glob("[0-9a-f]*")):
        assert time.monotonic() < end and sweep.poll() is None
        time.sleep(0.02)
    sweep.send_signal(signal.SIGINT)
    assert sweep.wait(60) == 130
    runs, _ = plan(read_sweep(path), path, "cpu", 1)
    there = [run.key for run in runs if run.stored]
    assert 0 < len(there) < 40 and all(read_run(key) for key in there)
    assert not (own_store / "sweeps").exists()
    some = write(tmp_path, block(models=["DARE"], seeds=[1], vary={"top_k": [1, 2, 40]}))
    status, said, _ = dare(monkeypatch, capsys, "sweep", str(some))
    assert status == 0 and f"{len({*there} & keys_of(some))} there already" in said
    assert pl.read_parquet(own_store / "sweeps" / "grid.parquet").height == 3


def test_what_comes_back_is_verified(tmp_path: Path, own_store: Path, monkeypatch) -> None:
    """A worker computes in a store of its own; what is damaged, or another run, is refused and leaves nothing."""
    path = write(tmp_path, block(models=["DARE"]))
    one, other = with_keys(plan(read_sweep(path), path, "cpu", 1)[0], "cpu", 1)
    files, others = train_there(one, [], "cpu", 1), train_there(other, [], "cpu", 1)
    assert not isinstance(files, str) and not isinstance(others, str)
    assert os.environ["DARE_STORE"] != str(own_store) and not Path(os.environ["DARE_STORE"]).exists()
    assert "other code" in train_there(replace(one, key="0" * 16), [], "cpu", 1)
    assert "is not that of this machine" in train_there(replace(one, fingerprint="other"), [], "cpu", 1)
    monkeypatch.setenv("DARE_STORE", str(own_store))
    damaged = dict(files) | {"arrays.safetensors": files["arrays.safetensors"][:-1] + b"?"}
    for wrong in (damaged, others, dict(files) | {"../x": b""}, {"run.json": files["run.json"]}):
        with pytest.raises(InputError, match=one.key):
            receive(one.key, wrong)
    assert not list(runs_root().glob("*")) and not one.stored
    receive(one.key, files)
    receive(one.key, files)
    assert read_run(one.key).config == one.config and [path.name for path in runs_root().iterdir()] == [one.key]


def test_without_ray_one_sentence_says_how_to_install_it(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    status, _, err = dare(monkeypatch, capsys, "sweep", str(write(tmp_path, block())), "--ray", "auto")
    assert status == 2 and "make env-cluster" in err and len(err.strip().splitlines()) == 1
