"""Training on a device: the same code with dense Adam, mixed precision, and the memory it needs."""

import dataclasses

import numpy as np
import psutil
import pytest
import torch
from conftest import SMALL_SAMPLES, make_log

from dare_core.config import ModelConfig, RunConfig, TrainingConfig
from dare_core.data.samples import Samples, make_samples
from dare_core.errors import InputError
from dare_core.models.click_model import ClickModel
from dare_core.models.embeddings import Counts
from dare_core.models.zoo import MODELS, build_model
from dare_core.training import devices
from dare_core.training.devices import (
    COPIES,
    check_memory,
    check_weights,
    free_memory,
    memory_errors,
    memory_needed,
    saved_bytes,
    usable_device,
)
from dare_core.training.loop import Trained, train
from dare_core.training.runs import counts_of
from dare_core.training.store import click_key


def trained(model: str = "DARE", row_wise: bool | None = None, double: bool = False, **training: object) -> Trained:
    log = make_log(users=100)
    config = RunConfig(
        log="by_hand",
        samples=SMALL_SAMPLES,
        model=ModelConfig(name=model, size=4, top_k=5),
        training=TrainingConfig(batch_size=60, epochs=1, validations_per_epoch=2, **training),
    )
    splits, counts = make_samples(log, config.samples, 1), counts_of(log, config.samples)

    def make() -> ClickModel:
        model = build_model(config.model, counts, config.training, 1)
        return model.double() if double else model

    return train(config, splits, make, False, row_wise=row_wise)


@pytest.mark.parametrize("model", ["DARE", "TWIN", "equalised gradients", "SIM (soft)"])
def test_row_wise_and_dense_steps_train_alike(model: str) -> None:
    """The GPU's path, run on a CPU: a whole training with validation in between gives the same scores."""
    ours, dense = (trained(model, row_wise=way, double=True) for way in (True, False))
    assert np.allclose(ours.test_probability, dense.test_probability, atol=1e-5)
    assert ours.best.step == dense.best.step
    for name, weight in ours.model.state_dict().items():
        assert weight.is_contiguous(), name


def test_mixed_precision_is_another_computation_of_the_same() -> None:
    full, mixed = trained(precision="float32"), trained(precision="bfloat16")
    assert not np.array_equal(full.test_probability, mixed.test_probability)
    assert abs(full.best.auc - mixed.best.auc) < 0.05
    assert all(w.dtype != torch.bfloat16 for w in mixed.model.state_dict().values())


def test_precision_is_part_of_the_run() -> None:
    config = RunConfig(log="by_hand")
    mixed = config.model_copy(update={"training": TrainingConfig(precision="bfloat16")})
    assert click_key(config, "0", "code", {}) != click_key(mixed, "0", "code", {})


def test_unknown_or_missing_device_is_one_sentence() -> None:
    assert usable_device("cpu").type == "cpu"
    for name in ("gpu9", "cuda:99"):
        with pytest.raises(InputError, match=name):
            usable_device(name)


@pytest.mark.parametrize("name", MODELS)
def test_memory_is_counted_for_every_model(name: str) -> None:
    """What the meta device counts is what a real forward pass keeps."""
    log = make_log()
    counts = counts_of(log, SMALL_SAMPLES)
    batch = make_samples(log, SMALL_SAMPLES, 1)["train"].batch(slice(0, 8))
    model = build_model(ModelConfig(name=name, size=4, top_k=5), counts)
    before = {key: weight.clone() for key, weight in model.state_dict().items()}
    counted = saved_bytes(model, batch)
    assert all(torch.equal(weight, before[key]) for key, weight in model.state_dict().items())
    real = 0

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal real
        real += tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.losses(model.compute(batch))
    assert 0.5 * real < counted < 4 * real


def test_taobao_at_size_128_fits_a_card_of_24_gb() -> None:
    """Counted without allocating: tables as they would be, on the meta device."""
    log = make_log()
    splits = make_samples(log, SMALL_SAMPLES, 1)
    with torch.device("meta"):
        from dare_core.models.zoo import compose

        model = compose(ModelConfig(size=128), Counts(4_068_790, 9_407, 20), TrainingConfig())
    needed = memory_needed(model, splits, 50)
    tables = 2 * (4_068_791 + 9_408 + 21) * 128 * 4
    assert COPIES * tables < needed < 24e9


def test_too_little_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    log = make_log()
    splits = make_samples(log, SMALL_SAMPLES, 1)
    model = build_model(ModelConfig(size=4), counts_of(log, SMALL_SAMPLES))
    assert check_memory(model, splits, 10, torch.device("cpu")) == ""
    monkeypatch.setattr(devices.torch.cuda, "mem_get_info", lambda device: (2**40, 2**40))
    assert "GiB" in check_memory(model, splits, 10, torch.device("cuda"))
    monkeypatch.setattr(devices.torch.cuda, "mem_get_info", lambda device: (1_000, 2**40))
    with pytest.raises(InputError, match="smaller size or batch"):
        check_memory(model, splits, 10, torch.device("cuda"))


def test_samples_go_to_a_device_once() -> None:
    samples = make_samples(make_log(), SMALL_SAMPLES, 1)["train"]
    clicks = samples.clicks.to(torch.device("meta"))
    moved = samples.on(clicks)
    tensors = [getattr(moved, field.name) for field in dataclasses.fields(moved)]
    assert all(tensor.device.type == "meta" for tensor in tensors if isinstance(tensor, torch.Tensor))
    assert moved.clicks is clicks and moved.history == samples.history


def test_samples_count_as_memory_whatever_their_annotations_are(monkeypatch: pytest.MonkeyPatch) -> None:
    log = make_log()
    splits = make_samples(log, SMALL_SAMPLES, 1)
    model = build_model(ModelConfig(size=4), counts_of(log, SMALL_SAMPLES))
    needed = memory_needed(model, splits, 10)
    for field in dataclasses.fields(Samples):
        monkeypatch.setattr(field, "type", "Tensor")  # as with `from __future__ import annotations`
    assert memory_needed(model, splits, 10) == needed


def test_weights_that_do_not_fit_are_refused_before_they_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    check_weights(1_000)
    monkeypatch.setattr(devices, "free_memory", lambda: 2**30)
    with pytest.raises(InputError, match=r"4\.0 GiB .* 1\.0 GiB are free"):
        check_weights(2**30)


def test_an_allocation_that_fails_is_one_sentence() -> None:
    with pytest.raises(InputError, match="too little memory"), memory_errors():
        torch.empty(2**60)
    with pytest.raises(RuntimeError, match="shapes"), memory_errors():
        torch.ones(2, 3) @ torch.ones(2, 3)


def test_a_limit_of_the_process_is_respected() -> None:
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, before[1]))
    try:
        assert free_memory() <= 2**28
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
