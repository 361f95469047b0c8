"""The run store: computed once, verified when read, whole or not at all."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SMALL_SAMPLES, make_log

from dare_core import runs
from dare_core.config import ModelConfig, RunConfig, TrainingConfig
from dare_core.data.logs import Log
from dare_core.errors import InputError
from dare_core.runs import RunStore, find_run, list_runs, read_run, remove_run, run_key
from dare_core.training import predict

CONFIG = RunConfig(
    log="by_hand",
    samples=SMALL_SAMPLES,
    model=ModelConfig(name="TWIN", size=4, top_k=5),
    training=TrainingConfig(batch_size=60, epochs=1, record_gradients=True),
)


@pytest.fixture
def store(log: Log, monkeypatch: pytest.MonkeyPatch) -> RunStore:
    monkeypatch.setattr(runs, "load", lambda name: log)
    return RunStore(progress=False)


def test_computed_once_then_read(store: RunStore, log: Log) -> None:
    first, second = store.get(CONFIG), store.get(CONFIG)
    assert (store.computed, store.reused) == (1, 1)
    assert not first.reused and second.reused
    assert first.key == second.key and first.history == second.history
    assert np.array_equal(first.test_probability, second.test_probability)
    assert second.gradients is not None and first.gradients is not None
    for name, values in first.gradients.arrays().items():
        assert np.array_equal(values, second.gradients.arrays()[name]), name
    again = predict(second.model(log), store.samples(CONFIG)["test"], CONFIG.training)
    assert np.array_equal(again, second.test_probability)


def test_key_follows_everything_that_matters(log: Log) -> None:
    keys = {run_key(CONFIG, log.fingerprint), run_key(CONFIG, "another log")}
    for part, changes in (
        ("model", {"size": 5}),
        ("model", {"name": "DARE"}),
        ("training", {"epochs": 2}),
        ("training", {"official": ("drop_last",)}),
        ("samples", {"negatives": 3}),
    ):
        changed = getattr(CONFIG, part).model_copy(update=changes)
        keys.add(run_key(CONFIG.model_copy(update={part: changed}), log.fingerprint))
    keys.add(run_key(CONFIG.model_copy(update={"seed": 2}), log.fingerprint))
    assert len(keys) == 8
    renamed = CONFIG.model_copy(update={"log": "another name"})
    assert run_key(renamed, log.fingerprint) == run_key(CONFIG, log.fingerprint)


def test_damage_is_noticed_and_mended(store: RunStore, own_store: Path) -> None:
    run = store.get(CONFIG)
    weights = run.folder / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8] + b"damaged!")
    with pytest.raises(InputError, match=run.key):
        read_run(run.key)
    mended = store.get(CONFIG)
    assert store.computed == 2 and np.array_equal(mended.test_probability, run.test_probability)


def test_an_interrupted_run_leaves_nothing(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "save_arrays", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store.get(CONFIG)
    assert list_runs() == [] and not list(runs.runs_root().iterdir())


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
    assert run_key(CONFIG, log.fingerprint) != run_key(CONFIG, other.fingerprint)
