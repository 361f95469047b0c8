"""The training loop: seeds, batches, validation, selection."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from dare_core.config import RunConfig, TrainingConfig
from dare_core.data.samples import Batch, Samples
from dare_core.errors import InputError
from dare_core.evaluation import metrics
from dare_core.models.click_model import ClickModel
from dare_core.schedule import running_on
from dare_core.training.devices import check_memory, usable_device
from dare_core.training.gradients import GradientRecord, GradientRecorder
from dare_core.training.optimizers import Steps
from dare_core.training.store import Validation

STEPS_AN_EPOCH, FEWEST_SAMPLES, MOST_SAMPLES = 2_000, 32, 2_048
"""The recipe: about the paper's number of steps per epoch, and its batch size at its number of samples."""
REPETITION = 1_000_003
"""Seeds between two repetitions: more than the seeds of any study."""
EVALUATION_BATCH = 512
"""Histories per evaluation batch: in evaluation mode its size changes speed and memory, not the result."""
GATHERED = 512
"""Histories that are gathered at a time for training."""


@dataclass(frozen=True)
class Trained:
    """Result of a training: the model with the weights of the best validation AUC, and its test probabilities."""

    model: ClickModel
    history: list[Validation]
    best: Validation
    validation_probability: np.ndarray  # (V, H, C) float32, at each line of the history
    test_probability: np.ndarray  # (H, C) float32
    gradients: GradientRecord | None
    seconds: float  # training alone, without validation
    samples_per_second: float


def batch_samples(config: TrainingConfig, training_samples: int) -> int:
    """Samples per step: as configured, else by the recipe, a 2,000th of the training samples from 32 to 2,048."""
    recipe = min(max(training_samples // STEPS_AN_EPOCH, FEWEST_SAMPLES), MOST_SAMPLES)
    return config.batch_size or recipe


def batch_histories(config: TrainingConfig, training: Samples, split: Samples | None = None) -> int:
    """Histories per batch of a split, by default the training samples: samples per step by candidates per history."""
    candidates = (training if split is None else split).items.shape[1]
    return max(1, round(batch_samples(config, training.size) / candidates))


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


def mixed_precision(config: TrainingConfig, device: torch.device) -> torch.autocast:
    """Autocast for the forward pass, where it is asked for."""
    return torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bfloat16")


@torch.no_grad()
def predict(
    model: ClickModel, samples: Samples, config: TrainingConfig, histories: int = EVALUATION_BATCH
) -> np.ndarray:
    """Click probabilities (H, C) float32 of H histories with C candidates, in evaluation mode.

    `config.official` may ask for the published code's habits: no evaluation mode, and `drop_last`, with which the
    samples of the last partial batch get NaN. Only for these the batch size matters: it is that of training,
    `histories`.
    """
    published = "no_evaluation_mode" in config.official
    if not published and "drop_last" not in config.official:
        histories = EVALUATION_BATCH
    model.train(published)
    device = samples.items.device
    result = torch.full(samples.items.shape, torch.nan, device=device)
    order = torch.arange(len(samples), device=device)
    with mixed_precision(config, device):
        for index in batches(order, histories, "drop_last" in config.official):
            result[index] = model.compute(samples.batch(index)).probability.float()
    model.train()
    return result.cpu().numpy()


def evaluate(probability: np.ndarray) -> tuple[float, float, float]:
    """AUC, accuracy and logloss of probabilities (H, C) whose first candidate is clicked; rows of NaN are left out."""
    kept = probability[~np.isnan(probability[:, 0])]
    labels = np.broadcast_to(np.arange(kept.shape[1]) == 0, kept.shape)
    return metrics.auc(labels, kept), metrics.accuracy(labels, kept), metrics.logloss(labels, kept)


def seeds_of(config: RunConfig) -> tuple[int, int, int]:
    """Seeds of initial weights, sample order and negatives; the published code moves only the first.

    A repetition draws weights and order anew and keeps the negatives: models that differ in nothing else.
    """
    weights = config.seed + REPETITION * config.training.repetition
    if "fixed_samples" in config.training.official:
        return weights, 0, 0
    return weights, weights, config.seed


def read_batches(samples: Samples, parts: Sequence[Tensor]) -> Iterator[Batch]:
    """The batches of a split. Small ones are gathered several at a time, which takes little more time than one."""
    each = max(1, GATHERED // len(parts[0]))
    for at in range(0, len(parts), each):
        some = list(parts[at : at + each])
        together = samples.batch(torch.cat(some))
        sizes = [len(part) for part in some]
        whole = {field.name: value for field in fields(Batch) if (value := getattr(together, field.name)) is not None}
        cuts = zip(*(value.split(sizes) for value in whole.values()), strict=True)
        yield from (Batch(**dict(zip(whole, cut, strict=True))) for cut in cuts)


class Selection:
    """Validates a model while it is trained, and keeps its best weights."""

    def __init__(self, model: ClickModel, samples: Samples, config: RunConfig, histories: int) -> None:
        self.model, self.samples, self.config, self.histories = model, samples, config, histories
        self.history: list[Validation] = []
        self.probabilities: list[np.ndarray] = []
        self.weights: dict[str, Tensor] = {}

    @property
    def best(self) -> Validation:
        """The line of highest AUC, of equal ones the first."""
        return max(self.history, key=lambda line: line.auc)

    def validate(self, step: int, seen: int, loss: float) -> Validation:
        """One more line of the history. Raises InputError where the loss is not finite."""
        settings = self.config.training
        if not np.isfinite(loss):
            raise InputError(
                f"Training {self.config.model.name} diverged at step {step} (the loss is not finite): "
                f"lower learning_rate (now {settings.learning_rate})."
            )
        self.probabilities.append(predict(self.model, self.samples, settings, self.histories))
        self.history.append(Validation(step, seen, loss, *evaluate(self.probabilities[-1])))
        if self.best is self.history[-1]:
            for name, weight in self.model.state_dict().items():  # into the same memory on the CPU each time
                self.weights.setdefault(name, torch.empty_like(weight, device="cpu")).copy_(weight)
        return self.history[-1]


def train(
    config: RunConfig,
    splits: dict[str, Samples],
    make: Callable[[], ClickModel],
    progress: bool = True,
    device: str = "cpu",
    row_wise: bool | None = None,
    observe: Callable[[int, ClickModel], None] | None = None,
    threads: int = 1,
) -> Trained:
    """Train a model and keep the weights of the best validation AUC.

    Parameters
    ----------
    config : settings of the training and the seed of the sample order; the negatives are in `splits` already
    splits : samples by split: `train`, `validation`, `test`
    make : builds the model with its initial weights
    device : `cpu` or `cuda`; samples and clicks stay there throughout, and nothing waits for it between validations
    row_wise : step only the rows of large tables that a batch reads (`Steps`), on a CPU; None: on a CPU
    observe : called with the step (0 before the first) and the model after every step; it must not change the model,
        whose table rows may lag behind where no batch has read them lately
    threads : of the processor; a small batch gives a second one nothing to do

    Raises InputError where there is too little to train on, the device is missing or its memory too small, or the
    loss stops being finite.
    """
    settings = config.training
    if "single_samples" in settings.official:
        splits = splits | {"train": splits["train"].singles()}
    if len(splits["train"]) < 2:
        raise InputError(f"Log {config.log!r} gives {len(splits['train'])} training targets: too few to train on.")
    histories = batch_histories(settings, splits["train"])
    evaluated = batch_histories(settings, splits["train"], splits["validation"])
    place = usable_device(device)
    with running_on(threads):
        model = make()
        memory = check_memory(model, splits, histories, place)
        if memory and progress:
            tqdm.write(memory, file=sys.stderr)
        model = model.to(place)
        clicks = splits["train"].clicks.to(place)
        splits = {name: samples.on(clicks) for name, samples in splits.items()}
        selection = Selection(model, splits["validation"], config, evaluated)
        recorder = GradientRecorder(model) if settings.record_gradients else None
        row_wise = place.type == "cpu" if row_wise is None else row_wise
        seconds = run_epochs(model, splits["train"], histories, selection, recorder, row_wise, progress, observe)
        model.load_state_dict(selection.weights)
        test = predict(model, splits["test"], settings, evaluated)
    record = recorder.result() if recorder is not None else None
    history, validation = selection.history, np.stack(selection.probabilities)
    speed = history[-1].samples / seconds
    return Trained(model.cpu(), history, selection.best, validation, test, record, seconds, speed)


def run_epochs(
    model: ClickModel,
    samples: Samples,
    histories: int,
    selection: Selection,
    recorder: GradientRecorder | None,
    row_wise: bool,
    progress: bool,
    observe: Callable[[int, ClickModel], None] | None,
) -> float:
    """All epochs with their validations; returns the seconds that the steps took."""
    config, place = selection.config, samples.items.device
    settings, drop_last = config.training, "drop_last" in config.training.official
    steps_an_epoch = len(list(batches(torch.arange(len(samples)), histories, drop_last)))
    steps = Steps(model, settings, settings.epochs * steps_an_epoch, row_wise)
    generator = torch.Generator().manual_seed(seeds_of(config)[1])
    validate_after = validation_steps(steps_an_epoch, settings.validations_per_epoch)
    step = seen = first = 0
    seconds = 0.0
    loss_sum = torch.zeros((), device=place)
    name, total = f"{config.model.name} seed {config.seed}", settings.epochs * samples.size
    if observe is not None:
        observe(0, model)
    quiet = None if progress else True  # None: quiet where there is no terminal
    with tqdm(total=total, unit=" samples", unit_scale=True, desc=name, disable=quiet, leave=False) as bar:
        started = time.perf_counter()
        for _ in range(settings.epochs):
            order = torch.randperm(len(samples), generator=generator).to(place)
            parts = list(batches(order, histories, drop_last))
            for at, batch in enumerate(read_batches(samples, parts), 1):
                loss_sum += train_step(model, batch, steps, settings, recorder)
                step, seen = step + 1, seen + batch.target_items.numel()
                bar.update(batch.target_items.numel())
                if observe is not None:
                    observe(step, model)
                if at in validate_after:
                    steps.catch_up()
                    loss = float(loss_sum) / (step - first)  # here a GPU is waited for
                    seconds += time.perf_counter() - started
                    line = selection.validate(step, seen, loss)
                    loss_sum.zero_()
                    first = step
                    bar.set_postfix(validation_auc=f"{line.auc:.4f}", refresh=False)
                    started = time.perf_counter()
    return seconds


def train_step(
    model: ClickModel, batch: Batch, steps: Steps, settings: TrainingConfig, recorder: GradientRecorder | None
) -> Tensor:
    """One step of training; returns its loss."""
    steps.prepare(batch)
    with mixed_precision(settings, batch.target_items.device):
        output = model.compute(batch)
        main, auxiliary = model.losses(output, batch.clicked)
    loss = main + auxiliary
    if recorder is not None:
        recorder.listen(output.vectors, batch)
    loss.backward()
    model.embeddings.combine_gradients()
    if recorder is not None:
        recorder.record()
    steps.step()
    return loss.detach()
