"""Training a character-level GPT: settings, learning rate by iteration, batches, evaluation, and when to stop."""

import math
import time
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor
from tqdm import tqdm

from dare_core.config import Strict
from dare_core.errors import InputError
from dare_core.language.gpt import LanguageModel, LanguageModelConfig
from dare_core.language.text import Text
from dare_core.schedule import one_thread

STRETCH = 1_024
"""Characters of a stretch of validation text: the unit that the bootstrap draws."""
STRETCHES = 128
"""Stretches that a finished model is evaluated on, where the text has as many."""
WATCHED = 16
"""Further stretches, evaluated during training: they decide when it ends, so that the finished model is not judged by
them. A text with fewer stretches gives the same share of them, but one at least."""
PATIENCE = 4
"""Evaluations that are compared with as many before them."""
FLAT = 0.005
"""A validation loss is flat when its best of `PATIENCE` evaluations is less than this (nats per character) below the
best of as many before."""
DECAY_SHARE = 0.2
"""Share of a training's iterations that its final decay takes, always in full."""


class LanguageTrainingConfig(Strict):
    """How a language model is trained: AdamW, gradients clipped, decay of matrices only (nanoGPT's habits)."""

    schedule: Literal["until flat", "cosine"] = Field(
        "until flat",
        description="until flat: a constant rate until the validation loss is flat, then a linear decay; "
        "cosine: decay over all iterations (nanoGPT)",
    )
    iterations: int = Field(2_500, ge=5, le=1_000_000, description="iterations at most, the final decay included")
    batch: int = Field(12, ge=1, le=4_096, description="windows per iteration")
    learning_rate: float = Field(3e-3, gt=0, le=1)
    last_rate: float = Field(0.1, gt=0, le=1, description="the last learning rate over the highest")
    warm_up: int = Field(100, ge=0, description="iterations of linear growth of the rate")
    evaluate_every: int = Field(125, ge=1)
    weight_decay: float = Field(0.1, ge=0)
    second_beta: float = Field(0.99, gt=0, lt=1)
    clip: float = Field(1.0, gt=0, description="largest norm of a gradient")

    @model_validator(mode="after")
    def _warm_up_ends(self) -> "LanguageTrainingConfig":
        if self.warm_up >= self.iterations:
            raise ValueError(f"warm_up {self.warm_up} is not below iterations {self.iterations}")
        return self


class LanguageRunConfig(Strict):
    """One training run: everything that its result depends on, but for the text."""

    model: LanguageModelConfig = LanguageModelConfig()
    training: LanguageTrainingConfig = LanguageTrainingConfig()
    seed: int = Field(1, ge=0, le=2**31 - 1)


NANOGPT = LanguageRunConfig(
    model=LanguageModelConfig(size=128, layers=4, heads=4, block=64),
    training=LanguageTrainingConfig(schedule="cosine", iterations=2_000, batch=12, learning_rate=1e-3),
)
"""nanoGPT's setting for tiny shakespeare on a CPU."""
NANOGPT_LOSS = 1.88
"""The validation loss that nanoGPT's own page gives for it."""


@dataclass(frozen=True)
class Evaluation:
    """One line of a run's history."""

    step: int
    rate: float
    train_loss: float  # mean since the last evaluation, nats per character
    validation_loss: float  # on the watched stretches


@dataclass(frozen=True)
class LanguageTrained:
    """A finished training."""

    history: list[Evaluation]
    losses: np.ndarray  # (W,) float64: validation loss of each stretch, at the end
    flat: bool | None  # whether the loss was flat before the final decay; None where the schedule does not ask
    seconds: float
    model: LanguageModel = field(repr=False)


def rate_at(step: int, config: LanguageTrainingConfig, decay_from: int, end: int) -> float:
    """Learning rate of an iteration (counted from 0); the final decay goes from `decay_from` to `end`."""
    low = config.last_rate
    if step < config.warm_up:
        share = (step + 1) / (config.warm_up + 1)
    elif config.schedule == "cosine":
        done = (step - config.warm_up) / (end - config.warm_up)
        share = low + (1 - low) * (1 + math.cos(math.pi * done)) / 2
    elif step < decay_from:
        share = 1.0
    else:
        share = 1 - (1 - low) * (step - decay_from + 1) / (end - decay_from)
    return config.learning_rate * share


def is_flat(losses: list[float]) -> bool:
    """Whether the best of the last evaluations improves on the best of as many before by less than `FLAT`."""
    if len(losses) < 2 * PATIENCE:
        return False
    return min(losses[-2 * PATIENCE : -PATIENCE]) - min(losses[-PATIENCE:]) < FLAT


def validation_windows(codes: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """Fixed windows (W, N, block + 1): W stretches of validation text, in a seeded order, cut into N windows each.

    Those that are watched during training, and those that the finished model is evaluated on. They depend on the text
    and the block alone, so that every model is evaluated on the same characters.
    """
    stretches = (len(codes) - 1) // STRETCH
    if stretches < 3 or block > STRETCH:
        raise InputError(
            f"text: its {len(codes)} validation characters give {stretches} stretches of {STRETCH}, where three are "
            f"needed and a block ({block}) must fit into one."
        )
    chosen = np.random.default_rng(0).permutation(stretches)[: WATCHED + STRETCHES]
    starts = torch.from_numpy(chosen)[:, None] * STRETCH + torch.arange(STRETCH // block) * block
    windows = codes[starts[:, :, None] + torch.arange(block + 1)]
    watched = max(1, len(windows) * WATCHED // (WATCHED + STRETCHES))
    return windows[:watched], windows[watched:]


@torch.no_grad()
def evaluate(model: LanguageModel, windows: Tensor) -> np.ndarray:
    """Mean loss (W,) of each stretch of windows (W, N, block + 1) in nats per character."""
    losses = torch.cat([model.losses(part) for part in windows.flatten(0, 1).split(64)])
    return losses.double().numpy().reshape(windows.shape[:2]).mean(1)


def make_optimizer(model: LanguageModel, config: LanguageTrainingConfig) -> torch.optim.Optimizer:
    """AdamW; only matrices decay, the gains of layer norms do not."""
    groups = [
        {"params": [p for p in model.parameters() if p.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in model.parameters() if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, config.second_beta), fused=True)


def train_step(
    model: LanguageModel, optimizer: torch.optim.Optimizer, windows: Tensor, rate: float, clip: float
) -> Tensor:
    """One step at a learning rate, its gradient clipped; returns the loss."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    loss = model.losses(windows).mean()
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()
    return loss.detach()


@dataclass
class _Course:
    """How long a training goes on: its final decay begins when the loss is flat, or at the latest possible time."""

    decay_from: int
    end: int
    flat: bool | None

    def look(self, step: int, losses: list[float]) -> None:
        """Begin the final decay after `step` where the validation losses are flat."""
        if self.flat is False and step <= self.decay_from and is_flat(losses):
            self.flat, self.decay_from = True, step
            self.end = step + max(1, round(step * DECAY_SHARE / (1 - DECAY_SHARE)))


@one_thread()  # a second one waits for these small matrices more than it works on them
def train_language(config: LanguageRunConfig, text: Text, progress: bool = True) -> LanguageTrained:
    """Train a language model and evaluate it at the end, on the weights it then has.

    The seed moves the initial weights and the windows drawn; windows are the same for every model of a seed.
    Raises InputError where the text is too short or the loss is not finite.
    """
    settings, block = config.training, config.model.block
    codes, validation_codes = text.encoded
    if len(codes) <= block + 1:
        raise InputError(f"text: its {len(codes)} training characters are fewer than a block of {block}.")
    watched, judged = validation_windows(validation_codes, block)
    model = LanguageModel(config.model, len(text.characters), config.seed)
    optimizer = make_optimizer(model, settings)
    generator = torch.Generator().manual_seed(config.seed)
    last = settings.iterations - max(1, round(DECAY_SHARE * settings.iterations))  # constant at most
    course = _Course(last, settings.iterations, False if settings.schedule == "until flat" else None)
    history = list[Evaluation]()
    loss_sum, first, step = torch.zeros(()), 0, 0
    started = time.perf_counter()
    name, quiet = f"{config.model.kind} {config.model.size}", None if progress else True
    with tqdm(total=course.end, desc=name, disable=quiet, leave=False) as bar:
        while step < course.end:
            rate = rate_at(step, settings, course.decay_from, course.end)
            starts = torch.randint(len(codes) - block, (settings.batch, 1), generator=generator)
            windows = codes[starts + torch.arange(block + 1)]
            loss_sum += train_step(model, optimizer, windows, rate, settings.clip)
            step += 1
            bar.update()
            if step % settings.evaluate_every and step != course.end:
                continue
            train_loss = float(loss_sum) / (step - first)
            if not math.isfinite(train_loss):
                raise InputError(
                    f"Training the language model ({config.model.kind}, size {config.model.size}) diverged at "
                    f"iteration {step}: lower learning_rate (now {settings.learning_rate})."
                )
            history.append(Evaluation(step, rate, train_loss, float(evaluate(model, watched).mean())))
            loss_sum, first = torch.zeros(()), step
            bar.set_postfix(validation=f"{history[-1].validation_loss:.3f}")
            course.look(step, [line.validation_loss for line in history])
            bar.total = course.end
    seconds = time.perf_counter() - started
    return LanguageTrained(history, evaluate(model, judged), course.flat, seconds, model)
