"""The run store: computed once, verified when read, whole or not at all."""

import json
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import SMALL_SAMPLES, make_log, store_small_log

from dare_core.config import ModelConfig, RunConfig, TrainingConfig
from dare_core.data.logs import Log
from dare_core.errors import InputError
from dare_core.files import locked
from dare_core.training import runs
from dare_core.training import store as storing
from dare_core.training.loop import Trained, batch_samples, predict, train
from dare_core.training.runs import LOGS, RunStore, read_run
from dare_core.training.store import (
    ClickRecord,
    click_key,
    environment,
    find_run,
    list_runs,
    remove_run,
    runs_and_damaged,
    runs_root,
    write_record,
)

CONFIG = RunConfig(
    log="by_hand",
    samples=SMALL_SAMPLES,
    model=ModelConfig(name="TWIN", size=4, top_k=5),
    training=TrainingConfig(batch_size=60, epochs=1, record_gradients=True),
)


def key_of(config: RunConfig, fingerprint: str) -> str:
    """The key of a run by configuration and log alone."""
    return click_key(config, fingerprint, "code", {})


@pytest.fixture
def store(log: Log, monkeypatch: pytest.MonkeyPatch) -> RunStore:
    monkeypatch.setattr(runs, "load", lambda name: log)
    return RunStore(progress=False)


def test_computed_once_then_read(store: RunStore, log: Log) -> None:
    first, second = store.get(CONFIG), store.get(CONFIG)
    assert (store.computed, store.reused) == (1, 0), "each run counts once"
    assert not first.reused and second.reused
    assert first.key == second.key and first.history == second.history
    assert np.array_equal(first.test_probability, second.test_probability)
    assert second.gradients is not None and first.gradients is not None
    for name, values in vars(first.gradients).items():
        assert np.array_equal(values, vars(second.gradients)[name]), name
    again = predict(second.model(log), store.samples(CONFIG)["test"], CONFIG.training)
    assert np.array_equal(again, second.test_probability)


def test_key_follows_everything_that_matters(log: Log) -> None:
    keys = {key_of(CONFIG, log.fingerprint), key_of(CONFIG, "another log")}
    for part, changes in (
        ("model", {"size": 5}),
        ("model", {"name": "DARE"}),
        ("training", {"epochs": 2}),
        ("training", {"official": ("drop_last",)}),
        ("samples", {"negatives": 3}),
    ):
        changed = getattr(CONFIG, part).model_copy(update=changes)
        keys.add(key_of(CONFIG.model_copy(update={part: changed}), log.fingerprint))
    keys.add(key_of(CONFIG.model_copy(update={"seed": 2}), log.fingerprint))
    assert len(keys) == 8
    renamed = CONFIG.model_copy(update={"log": "another name"})
    assert key_of(renamed, log.fingerprint) == key_of(CONFIG, log.fingerprint)


def test_damage_is_noticed_and_mended(store: RunStore, own_store: Path) -> None:
    run = store.get(CONFIG)
    weights = run.folder / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8] + b"damaged!")
    with pytest.raises(InputError, match=run.key):
        read_run(run.key)
    mended = store.get(CONFIG)
    assert store.computed == 2 and np.array_equal(mended.test_probability, run.test_probability)


def rewrite(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text("utf-8"))
    change(content)
    path.write_text(json.dumps(content), "utf-8")


@pytest.mark.parametrize(
    "change",
    [
        lambda stored: stored["best"].update(auc=0.99),
        lambda stored: stored["config"]["model"].update(name="DARE"),
        lambda stored: stored.update(seconds=1.0),
        lambda stored: stored.pop("history"),
        lambda stored: stored.pop("sha256"),
        lambda stored: stored["environment"].pop("threads"),
        lambda stored: stored["sha256"].pop("run.json"),
        lambda stored: stored.update(history=3),
        lambda stored: stored.update(log=None),
        lambda stored: stored.clear(),
    ],
)
def test_a_changed_record_is_refused_and_computed_again(
    store: RunStore, change: Callable[[dict[str, Any]], object]
) -> None:
    run = store.get(CONFIG)
    rewrite(run.folder / "run.json", change)
    with pytest.raises(InputError, match=run.key):
        read_run(run.key)
    assert runs_and_damaged() == ([], [run.key])
    mended = store.get(CONFIG)
    assert store.computed == 2 and mended.history == run.history and list_runs()[0].best == run.best


def test_a_whole_run_under_another_key_is_refused(store: RunStore) -> None:
    """Every hash is right, and yet it is not the run that was asked for."""
    run = store.get(CONFIG)
    other = runs_root() / "0123456789abcdef"
    run.folder.rename(other)
    with pytest.raises(InputError, match="another run"):
        read_run(other.name)
    content = json.loads((other / "run.json").read_text("utf-8")) | {"key": other.name}
    write_record(other, content, ClickRecord.FILES)
    with pytest.raises(InputError, match="another run"):
        read_run(other.name)


def test_the_key_holds_code_and_circumstances(log: Log, store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = CONFIG.model_copy(update={"training": TrainingConfig(epochs=1)})
    keys = {store.key(CONFIG), store.key(recipe), RunStore(threads=2).key(CONFIG), RunStore(device="cuda").key(CONFIG)}
    assert RunStore(device="cuda:0").key(CONFIG) in keys
    size = store.samples(recipe)["train"].size
    assert store._batch_samples(recipe) == batch_samples(recipe.training, size)
    monkeypatch.setattr(runs, "batch_samples", lambda config, size: 61)
    keys.add(store.key(recipe))
    monkeypatch.setattr(runs, "environment", lambda: environment() | {"torch": "0.1"})
    keys.add(store.key(CONFIG))
    monkeypatch.setattr(runs, "code_hash", lambda modules: "other code")
    keys.add(store.key(CONFIG))
    assert len(keys) == 7


def test_a_run_has_its_threads(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def observed(*arguments: Any, **named: Any) -> Trained:
        return train(*arguments, **named, observe=lambda step, model: step or seen.append(torch.get_num_threads()))

    monkeypatch.setattr(runs, "train", observed)
    two = RunStore(progress=False, threads=2)
    assert json.loads((two.get(CONFIG).folder / "run.json").read_text("utf-8"))["environment"]["threads"] == 2
    store.get(CONFIG)
    assert seen == [2, 1] and torch.get_num_threads() == 1


def test_threads_that_ask_at_once_compute_once(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    count = []
    monkeypatch.setattr(runs, "train", lambda *a, **k: count.append(1) or time.sleep(0.3) or train(*a, **k))
    stores = [RunStore(progress=False) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda store: store.get(CONFIG), stores)
    assert len(count) == 1 and first.history == second.history
    assert sorted(store.computed for store in stores) == [0, 1]
    damaged = first.folder / "run.json"
    damaged.write_text("{}", "utf-8")
    with ThreadPoolExecutor(2) as pool:  # both find it damaged
        list(pool.map(lambda store: store.get(CONFIG), stores))
    assert len(count) == 2


def stored_log() -> RunConfig:
    """A configuration whose log other processes find."""
    store_small_log()
    return CONFIG.model_copy(update={"training": TrainingConfig(batch_size=60, epochs=1)})


def computed_here(config: RunConfig) -> bool:
    """Ask for a run; whether this process computed it."""
    return not RunStore(progress=False).get(config).reused


def test_processes_that_ask_at_once_compute_once(own_store: Path) -> None:
    config = stored_log()
    own = RunStore(progress=False).key(config)
    with locked(runs_root() / own):
        pool = ProcessPoolExecutor(2, get_context("spawn"))
        asked = [pool.submit(computed_here, config) for _ in range(2)]
        time.sleep(1)
        assert not any(future.done() for future in asked) and list_runs() == []
    assert sorted(future.result() for future in asked) == [False, True]
    pool.shutdown()
    assert [run.key for run in list_runs()] == [own]


def test_many_runs_side_by_side_are_those_one_by_one(own_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = stored_log()
    configs = [config.model_copy(update={"seed": seed}) for seed in (3, 1, 2, 3)]
    monkeypatch.setenv("DARE_WORKERS", "2")
    store = RunStore(progress=False)
    store.get(configs[1])
    monkeypatch.setattr(runs, "train", None)  # this process computes none of them
    many = store.get_many(configs)
    assert [run.config.seed for run in many] == [3, 1, 2, 3]
    assert (store.computed, store.reused) == (3, 0) and [run.reused for run in many] == [False, True, False, False]
    monkeypatch.setattr(runs, "train", train)
    monkeypatch.setenv("DARE_STORE", str(own_store / "other"))
    stored_log()
    monkeypatch.setenv("DARE_WORKERS", "1")  # other processes are at work
    monkeypatch.setattr(runs, "in_processes", None)
    alone = RunStore(progress=False).get_many(configs)
    assert [run.history for run in alone] == [run.history for run in many]
    assert all(np.array_equal(a.test_probability, b.test_probability) for a, b in zip(alone, many, strict=True))


def test_a_failure_keeps_what_is_finished(own_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = stored_log()
    bad = config.model_copy(update={"model": ModelConfig(name="nothing")})
    monkeypatch.setenv("DARE_WORKERS", "2")
    with pytest.raises(InputError, match="nothing"):  # before anything starts
        RunStore(progress=False).get_many([config, bad])
    assert not list_runs()
    monkeypatch.setattr(RunStore, "_weights", lambda store, config: 1)  # it fails when it is its turn
    with pytest.raises(InputError, match="nothing"):
        RunStore(progress=False).get_many([config, bad])
    assert [run.config for run in list_runs()] == [config]


def test_the_last_logs_stay_in_memory(monkeypatch: pytest.MonkeyPatch, log: Log) -> None:
    loaded: list[str] = []
    monkeypatch.setattr(runs, "load", lambda name: loaded.append(name) or log)
    store = RunStore(progress=False)
    names = [f"log {i}" for i in range(LOGS)]
    for name in [*names, *names]:
        store.samples(CONFIG.model_copy(update={"log": name}))
    assert loaded == names
    store.log("another")
    store.log(names[1])
    assert loaded == [*names, "another"]
    store.log(names[0])
    assert loaded[-1] == names[0]


def test_an_interrupted_run_leaves_nothing(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(storing, "save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store.get(CONFIG)
    assert list_runs() == [] and not list(runs_root().iterdir())


def test_list_find_remove(store: RunStore) -> None:
    run = store.get(CONFIG)
    assert [r.key for r in list_runs()] == [run.key]
    assert find_run(run.key[:5]) == run.key
    assert remove_run(run.key[:5]) == run.key
    assert list_runs() == []
    with pytest.raises(InputError, match="dare runs list"):
        find_run(run.key)


def test_models_of_a_seed_see_the_same_samples(store: RunStore) -> None:
    dare = CONFIG.model_copy(update={"model": ModelConfig(name="DARE", size=8)})
    assert store.samples(CONFIG) is store.samples(dare)
    other = store.samples(CONFIG.model_copy(update={"seed": 2}))
    assert not torch.equal(other["train"].items, store.samples(CONFIG)["train"].items)


def test_a_log_of_another_content_is_another_run(log: Log) -> None:
    other = make_log(seed=5)
    assert key_of(CONFIG, log.fingerprint) != key_of(CONFIG, other.fingerprint)
