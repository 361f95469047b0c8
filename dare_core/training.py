"""The training loop: seeds, batches, validation, selection."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from dare_core import metrics
from dare_core.click_model import ClickModel
from dare_core.config import RunConfig, TrainingConfig
from dare_core.errors import InputError
from dare_core.gradients import GradientRecord, GradientRecorder
from dare_core.samples import Samples

SMALL_TRAINING = 500_000
EVALUATION_BATCH = 512
"""Histories an evaluation batch: in evaluation mode its size changes speed and memory, not the result."""


@dataclass(frozen=True)
class Validation:
    """One line of a run's history."""

    step: int
    samples: int
    train_loss: float  # mean since the last validation, auxiliary loss included
    auc: float
    accuracy: float
    logloss: float


@dataclass(frozen=True)
class Trained:
    """What training gives: the weights of the best validation AUC, and their test probabilities."""

    model: ClickModel
    history: list[Validation]
    best: Validation
    validation_probability: np.ndarray  # (V, H, C) float32, at each line of the history
    test_probability: np.ndarray  # (H, C) float32
    gradients: GradientRecord | None
    seconds: float  # training alone, without validation
    samples_per_second: float


def batch_histories(config: TrainingConfig, samples: Samples) -> int:
    """Histories a step: the batch size in samples, divided by the candidates of a history."""
    size = config.batch_size or (512 if samples.size < SMALL_TRAINING else 2_048)
    return max(1, round(size / samples.items.shape[1]))


def batches(order: Tensor, histories: int, drop_last: bool) -> Iterator[Tensor]:
    """Cut an order of targets into batches. A last batch of one history joins the one before it, because
    BatchNorm cannot normalise a single row."""
    parts = list(order.split(histories))
    if len(parts) > 1 and len(parts[-1]) < histories:
        if drop_last:
            parts.pop()
        elif len(parts[-1]) == 1:
            parts[-2:] = [torch.cat(parts[-2:])]
    yield from parts


def validation_steps(steps: int, times: int) -> set[int]:
    """Steps (counted from 1) after which an epoch is validated: `times` of them evenly spread, the end too."""
    return {round(steps * (i + 1) / times) for i in range(times)} - {0} | {steps}


@torch.no_grad()
def predict(model: ClickModel, samples: Samples, config: TrainingConfig) -> np.ndarray:
    """Click probabilities (H, C) float32, in evaluation mode unless the published code's habit is asked for.

    With `drop_last` the samples of the last partial batch get NaN.
    """
    published = "no_evaluation_mode" in config.official
    own = published or "drop_last" in config.official
    histories = batch_histories(config, samples) if own else EVALUATION_BATCH
    model.train(published)
    result = np.full(tuple(samples.items.shape), np.nan, np.float32)
    order = torch.arange(len(samples))
    for index in batches(order, histories, "drop_last" in config.official):
        result[index.numpy()] = model(samples.batch(index)).probability.numpy()
    model.train()
    return result


def evaluate(probability: np.ndarray) -> tuple[float, float, float]:
    """AUC, accuracy, logloss of probabilities (H, C) whose first candidate is clicked; NaN rows left out."""
    kept = probability[~np.isnan(probability[:, 0])]
    labels = np.zeros(kept.shape, np.int8)
    labels[:, 0] = 1
    return metrics.auc(labels, kept), metrics.accuracy(labels, kept), metrics.logloss(labels, kept)


def make_optimizer(model: ClickModel, config: TrainingConfig) -> torch.optim.Optimizer:
    """Adam; the published penalty l2 * ||w||^2 on non-embedding weights is a weight decay of 2 * l2."""
    groups = [
        {"params": model.embedding_parameters(), "weight_decay": 0.0},
        {"params": model.dense_parameters(), "weight_decay": 2 * config.l2},
    ]
    return torch.optim.Adam(groups, lr=config.learning_rate, fused=True)


def seeds_of(config: RunConfig) -> tuple[int, int, int]:
    """Seeds of initial weights, sample order and negatives; the published code moves only the first."""
    if "fixed_samples" in config.training.official:
        return config.seed, 0, 0
    return config.seed, config.seed, config.seed


def train(
    config: RunConfig,
    splits: dict[str, Samples],
    make: Callable[[], ClickModel],
    progress: bool = True,
) -> Trained:
    """Train a model and keep the weights of the best validation AUC.

    `make` builds the initialised model. The seed of the sample order comes from `config`; the negatives
    are in `splits` already. Recording gradients changes nothing: it only listens.
    """
    settings = config.training
    samples = splits["train"]
    if len(samples) < 2:
        raise InputError(f"Log {config.log!r} gives {len(samples)} training targets: too few to train on.")
    model = make()
    optimizer = make_optimizer(model, settings)
    recorder = GradientRecorder(model) if settings.record_gradients else None
    generator = torch.Generator().manual_seed(seeds_of(config)[1])
    histories = batch_histories(settings, samples)

    history: list[Validation] = []
    validations: list[np.ndarray] = []
    best, best_weights = None, {}
    step = seen = 0
    seconds = 0.0
    loss_sum = torch.zeros(())
    loss_steps = 0
    bar = tqdm(
        total=settings.epochs * samples.size,
        unit=" samples",
        unit_scale=True,
        desc=f"{config.model.name} seed {config.seed}",
        disable=None if progress else True,
        leave=False,
    )
    with bar:
        for _ in range(settings.epochs):
            order = torch.randperm(len(samples), generator=generator)
            epoch = list(batches(order, histories, "drop_last" in settings.official))
            validate_after = validation_steps(len(epoch), settings.validations_per_epoch)
            for at, index in enumerate(epoch, 1):
                started = time.perf_counter()
                batch = samples.batch(index)
                output = model(batch)
                main, auxiliary = model.losses(output)
                loss = main + auxiliary
                if recorder is not None:
                    recorder.listen(output.vectors, batch)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                model.combine_gradients()
                if recorder is not None:
                    recorder.record()
                optimizer.step()
                step += 1
                loss_sum += loss.detach()
                loss_steps += 1
                seconds += time.perf_counter() - started
                seen += batch.target_items.numel()
                bar.update(batch.target_items.numel())
                if at in validate_after:
                    mean_loss = float(loss_sum) / loss_steps
                    if not np.isfinite(mean_loss):
                        raise InputError(
                            f"Training {config.model.name} diverged at step {step} (the loss is not finite): "
                            f"lower learning_rate (now {settings.learning_rate})."
                        )
                    validations.append(predict(model, splits["validation"], settings))
                    values = evaluate(validations[-1])
                    history.append(Validation(step, seen, mean_loss, *values))
                    loss_sum, loss_steps = torch.zeros(()), 0
                    bar.set_postfix(validation_auc=f"{values[0]:.4f}")
                    if best is None or history[-1].auc > best.auc:
                        best = history[-1]
                        best_weights = {k: v.detach().clone() for k, v in model.state_dict().items()}
    assert best is not None
    model.load_state_dict(best_weights)
    test = predict(model, splits["test"], settings)
    record = recorder.result() if recorder is not None else None
    return Trained(model, history, best, np.stack(validations), test, record, seconds, seen / seconds)
