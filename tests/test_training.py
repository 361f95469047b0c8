"""The loop: batches, selection, evaluation mode, seeds, the published code's habits."""

import numpy as np
import pytest
import torch
from conftest import SMALL_SAMPLES, make_log

from dare_core.config import OFFICIAL, ModelConfig, RunConfig, TrainingConfig
from dare_core.data.logs import Log
from dare_core.data.samples import make_samples
from dare_core.errors import InputError
from dare_core.evaluation.metrics import auc
from dare_core.models.zoo import build_model
from dare_core.training.loop import (
    Trained,
    batch_histories,
    batch_samples,
    batches,
    evaluate,
    predict,
    seeds_of,
    train,
    validation_steps,
)
from dare_core.training.optimizers import Steps
from dare_core.training.runs import counts_of


def run_config(model: str = "DARE", seed: int = 1, **training) -> RunConfig:
    return RunConfig(
        log="by_hand",
        samples=SMALL_SAMPLES,
        model=ModelConfig(name=model, size=4, top_k=5),
        training=TrainingConfig(**{"batch_size": 60, "epochs": 2, **training}),
        seed=seed,
    )


def trained(log: Log, config: RunConfig, negatives: int = 1) -> Trained:
    splits = make_samples(log, config.samples, negatives)
    counts = counts_of(log, config.samples)
    return train(config, splits, lambda: build_model(config.model, counts, config.training, config.seed), False)


def test_learns_what_there_is_to_learn() -> None:
    log = make_log(users=400)
    result = trained(log, run_config(epochs=4))
    assert evaluate(result.test_probability)[0] > 0.65


def test_same_seed_same_result_and_other_seed_another(log: Log) -> None:
    first, again, other = (trained(log, run_config(seed=s)) for s in (1, 1, 2))
    assert np.array_equal(first.test_probability, again.test_probability)
    assert not np.allclose(first.test_probability, other.test_probability)


def test_best_validation_is_kept(log: Log) -> None:
    config = run_config(epochs=3)
    result = trained(log, config)
    splits = make_samples(log, SMALL_SAMPLES, 1)
    assert result.best.auc == max(line.auc for line in result.history)
    again = predict(result.model, splits["validation"], config.training)
    assert evaluate(again)[0] == pytest.approx(result.best.auc, abs=1e-12)
    line = result.history.index(result.best)
    assert np.array_equal(result.validation_probability[line], again)
    test = predict(result.model, splits["test"], config.training)
    assert np.array_equal(result.test_probability, test)


def test_validates_ten_times_an_epoch_and_at_its_end(log: Log) -> None:
    assert validation_steps(100, 10) == {10, 20, 30, 40, 50, 60, 70, 80, 90, 100}
    assert validation_steps(3, 10) == {1, 2, 3}
    result = trained(log, run_config(validations_per_epoch=2))
    steps = [line.step for line in result.history]
    assert steps[-1] == 2 * steps[1] and len(steps) == 4
    assert result.history[-1].samples == 2 * make_samples(log, SMALL_SAMPLES, 1)["train"].size


def test_last_batches() -> None:
    order = torch.arange(10)
    assert [len(b) for b in batches(order, 4, False)] == [4, 4, 2]
    assert [len(b) for b in batches(order, 4, True)] == [4, 4]
    assert [len(b) for b in batches(order, 3, False)] == [3, 3, 4], "a single history joins the batch before"
    assert torch.equal(torch.cat(list(batches(order, 3, False))), order)


def test_evaluation_does_not_depend_on_batches_unless_asked(log: Log) -> None:
    splits = make_samples(log, SMALL_SAMPLES, 1)
    model = build_model(ModelConfig(size=4, top_k=5), counts_of(log, SMALL_SAMPLES), TrainingConfig(initial_scale=0.3))
    with torch.no_grad():
        model.compute(splits["train"].batch(slice(0, 50)))  # running statistics other than their start
    test = splits["test"]
    whole = predict(model, test, TrainingConfig())
    model.eval()
    with torch.no_grad():
        one = model.compute(test.batch(torch.tensor([3]))).probability.numpy()
    assert np.allclose(whole[3], one[0], atol=1e-6)
    published = predict(model, test, TrainingConfig(official=("no_evaluation_mode",)), histories=10)
    assert not np.allclose(whole, published, atol=1e-4)


def test_published_habits_switch_on_alone(log: Log) -> None:
    plain = trained(log, run_config())
    for difference in ("no_evaluation_mode", "drop_last", "initialise_all", "single_samples"):
        changed = trained(log, run_config(official=(difference,)))
        assert not np.array_equal(plain.test_probability, changed.test_probability), difference
    dropped = trained(log, run_config(official=("drop_last",), batch_size=33)).test_probability
    assert np.isnan(dropped[-1]).all() and not np.isnan(dropped[0]).any()
    assert np.isfinite(evaluate(dropped)).all()
    everything = trained(log, run_config(official=OFFICIAL))
    assert np.isfinite(everything.best.auc)


def test_single_samples_are_the_same_samples(log: Log) -> None:
    """As one batch, single samples give the loss of the histories with their candidates; alone they are shuffled."""
    train = make_samples(log, SMALL_SAMPLES, 1)["train"]
    singles, some = train.singles(), 12
    candidates = train.items.shape[1]
    assert singles.size == train.size and np.array_equal(singles.labels.ravel(), train.labels.ravel())
    model = build_model(ModelConfig(size=4), counts_of(log, SMALL_SAMPLES), TrainingConfig(), 1)
    batch = singles.batch(slice(0, some * candidates))
    one = model.losses(model.compute(batch), batch.clicked)
    other = model.losses(model.compute(train.batch(slice(0, some))))
    for found, expected in zip(one, other, strict=True):
        assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    swapped = model.losses(model.compute(batch), ~batch.clicked)
    assert swapped[0].item() != pytest.approx(one[0].item(), rel=1e-4)


def test_l2_is_the_published_penalty(log: Log) -> None:
    """Weight decay of 2 * l2 is the gradient of l2 * ||w||^2."""
    config = TrainingConfig(l2=0.01)
    model = build_model(ModelConfig(size=4), counts_of(log, SMALL_SAMPLES), config)
    groups = Steps(model, config, 10, row_wise=False).dense.param_groups
    (tables, of_tables), (rest, of_rest) = ((group["params"], group["weight_decay"]) for group in groups)
    assert (of_tables, of_rest) == (0.0, 0.02)
    names = {id(p): n for n, p in model.named_parameters()}
    assert all("sets" in names[id(p)] for p in tables)
    assert not any("sets" in names[id(p)] for p in rest)


def test_shuffled_labels_teach_nothing() -> None:
    """Sensitivity: with targets and negatives exchanged at random, the test AUC is chance."""
    log = make_log(users=400)
    splits = make_samples(log, SMALL_SAMPLES, 1)
    generator = torch.Generator().manual_seed(0)
    for samples in splits.values():
        order = torch.rand(samples.items.shape, generator=generator).argsort(1)
        for tensor in (samples.items, samples.categories):
            tensor.copy_(tensor.gather(1, order))
    config = run_config()
    counts = counts_of(log, SMALL_SAMPLES)
    result = train(config, splits, lambda: build_model(config.model, counts, config.training, 1), False)
    assert abs(auc(splits["test"].labels, result.test_probability) - 0.5) < 0.06


def test_a_leak_of_the_target_is_noticed() -> None:
    """Sensitivity: histories that contain the target give the label away."""
    log = make_log(users=400)
    splits = make_samples(log, SMALL_SAMPLES, 1)
    leaked = {}
    for name, samples in splits.items():
        values = {f: getattr(samples, f) for f in samples.__dataclass_fields__}
        leaked[name] = type(samples)(**{**values, "row": samples.row + 1})
    config = run_config(epochs=4)
    counts = counts_of(log, SMALL_SAMPLES)
    honest = train(config, splits, lambda: build_model(config.model, counts, config.training, 1), False)
    cheating = train(config, leaked, lambda: build_model(config.model, counts, config.training, 1), False)
    assert cheating.best.auc > honest.best.auc + 0.05


def test_divergence_is_one_sentence(log: Log) -> None:
    config = run_config()
    splits = make_samples(log, SMALL_SAMPLES, 1)
    model = build_model(config.model, counts_of(log, SMALL_SAMPLES), config.training, 1)
    with torch.no_grad():
        model.main_head[1].weight.fill_(float("nan"))
    with pytest.raises(InputError, match="learning_rate"):
        train(config, splits, lambda: model, False)


def test_recipe_gives_the_papers_number_of_steps(log: Log) -> None:
    """study.md: training samples / 2,000 per step, at least 32, at most 2,048; a configured size wins."""
    recipe = TrainingConfig()
    assert [batch_samples(recipe, n) for n in (8_550, 96_672, 120_000, 4_860_000)] == [32, 48, 60, 2_048]
    assert batch_samples(TrainingConfig(batch_size=512), 120_000) == 512
    train = make_samples(log, SMALL_SAMPLES, 1)["train"]
    assert batch_histories(recipe, train) == round(32 / 3)


def test_a_repetition_draws_weights_anew_on_the_same_negatives() -> None:
    first, second = (seeds_of(run_config(repetition=r)) for r in (0, 1))
    assert first[0] != second[0] and first[1] != second[1] and first[2] == second[2]
