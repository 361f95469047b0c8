"""Projections: maps behind shared embeddings, in recommendation (claims P1 and P2; paper, section 2.3, figure 4c and
appendix C) and in a character-level GPT (P3; figure 5).

In recommendation every model is compared at the shared setting and at its own best one. For the latter every learning
rate and every way to start the maps is trained with three seeds (on generated logs: three worlds), and the highest mean
validation AUC wins (ties: the first). A search counts for the log, embedding size and number of epochs that it was made
with, and says nothing where most models choose a learning rate at the grid's edge: a better one may lie beyond it.
"""

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from dare_core.config import RunConfig
from dare_core.data.samples import Batch
from dare_core.errors import InputError
from dare_core.evaluation.intervals import Interval, Replicates, interval, leave_out, user_groups
from dare_core.evaluation.metrics import Array
from dare_core.files import canonical_json, short_hash, store_root, write_json
from dare_core.language.gpt import KINDS, Kind
from dare_core.language.runs import LanguageRun
from dare_core.models.click_model import ClickModel
from dare_core.models.embeddings import SIDES
from dare_core.models.interface import MapInitial
from dare_core.models.projections import FieldMaps
from dare_core.models.zoo import MODELS, build_model, model_spec
from dare_core.schedule import computing
from dare_core.studies.experiment import CLAIMED, REFERENCE, Experiment
from dare_core.studies.scores import made_with, searched
from dare_core.training.loop import seeds_of, train
from dare_core.training.runs import RunStore, counts_of

TWIN, PROJECTION, DARE = REFERENCE, "TWIN (w/ proj.)", CLAIMED
VARIANTS = tuple(name for name, spec in MODELS.items() if spec.maps is not None or spec.equalised)
"""Every way to decouple a shared table, TWIN (w/ proj.) among them."""
SHARED, BEST = "shared", "best"
LEARNING_RATES = (0.03, 0.01, 0.003, 0.001)
INITIALS: tuple[MapInitial, ...] = ("published", "xavier", "identity")
SEARCH_SEEDS = 3
EVERY = 5
"""Training steps between two looks at the maps."""
MOTION_VERSION = 1
"""Raised whenever something else is computed from the same training: stored motions are not reused."""
Rows = Sequence[Mapping[str, Any]]
LARGE = 16
"""Sizes of a language model above this have enough capacity, says the paper."""
WITH, WITHOUT, WIDER = KINDS


class Setting(NamedTuple):
    """What is searched for each model."""

    learning_rate: float
    map_initial: MapInitial = "published"

    def describe(self, model: str) -> str:
        """In words; initial values only where the model has maps."""
        initial = f", maps {self.map_initial}" if has_maps(model) else ""
        return f"{model}: learning rate {self.learning_rate:g}{initial}"


def has_maps(model: str) -> bool:
    """Whether a model maps its embeddings."""
    return model_spec(model).maps is not None


def grid(model: str) -> list[Setting]:
    """The settings tried: learning rates, and for models with maps every initial value with each."""
    initials = INITIALS if has_maps(model) else INITIALS[:1]
    return [Setting(rate, initial) for rate in LEARNING_RATES for initial in initials]


def search_settings(experiment: Experiment, model: str) -> list[dict[str, Any]]:
    """Every setting of a model with its validation AUC, mean over seeds; exactly one is `chosen`."""
    searching = replace(experiment, config=experiment.config.model_copy(update={"seeds": SEARCH_SEEDS}))
    runs = searching.compute([(model, setting._asdict()) for setting in grid(model)])
    found = {s: float(np.mean([run.best.auc for run in own])) for s, own in zip(grid(model), runs, strict=True)}
    best = max(found, key=lambda setting: found[setting])  # the first of equals
    return [
        {
            "log": experiment.name,
            **made_with(experiment),
            "model": model,
            "learning rate": setting.learning_rate,
            "initial values of maps": setting.map_initial if has_maps(model) else None,
            "seeds": SEARCH_SEEDS,
            "validation AUC": value,
            "chosen": setting == best,
        }
        for setting, value in found.items()
    ]


def choices(rows: Rows, experiment: Experiment) -> dict[str, Setting]:
    """The setting that a search chose for each model on this log at this size; empty where it was not searched."""
    return {
        row["model"]: Setting(row["learning rate"], row["initial values of maps"] or "published")
        for row in searched(experiment, rows)
        if row["chosen"]
    }


def edge_chosen(settings: Mapping[str, Setting]) -> bool:
    """Whether more than half of the models choose the highest or the lowest learning rate of the grid."""
    at_edge = [setting.learning_rate in (LEARNING_RATES[0], LEARNING_RATES[-1]) for setting in settings.values()]
    return sum(at_edge) > len(at_edge) / 2


@torch.no_grad()
def pass_seconds(models: Mapping[str, ClickModel], batch: Batch, rounds: int = 15) -> dict[str, Array]:
    """Seconds (rounds,) of a forward pass of each model in evaluation mode; in every round each model has its
    turn, so that what disturbs the machine disturbs all alike. A first round is thrown away."""
    found: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(rounds + 1):
        for name, model in models.items():
            model.eval()
            started = time.perf_counter()
            model.compute(batch)
            found[name].append(time.perf_counter() - started)
    return {name: np.array(values[1:]) for name, values in found.items()}


def effective_rank(weight: Tensor) -> float:
    """exp of the entropy of the singular values' shares, from 1 to the smaller side of the matrix
    (Roy and Vetterli 2007); 0 for a matrix of zeros."""
    values = torch.linalg.svdvals(weight.double())
    total = float(values.sum())
    return math.exp(float(torch.special.entr(values / total).sum())) if total else 0.0


def cosine(first: Tensor, second: Tensor) -> float:
    """Cosine of two matrices of one shape, taken as vectors; 0 where one is all zeros."""
    return float(nn.functional.cosine_similarity(first.double().flatten(), second.double().flatten(), dim=0))


@torch.no_grad()
def map_rows(step: int, model: ClickModel) -> list[dict[str, Any]]:
    """Statistics of a model's maps per field and side: Frobenius norm and effective rank of attention's and of
    representation's map, and the cosine between the two."""
    maps = model.embeddings.maps
    if not isinstance(maps, FieldMaps):
        raise InputError("The motion of maps is followed in models with one linear map per field and module.")
    rows = []
    for field, side in ((field, side) for field in maps.mapped for side in SIDES):
        attention: Any = maps.layers[maps.name(("attention", side), field)]
        representation: Any = maps.layers[maps.name(("representation", side), field)]
        rows.append(
            {
                "step": step,
                "field": field,
                "side": side,
                "attention norm": float(attention.weight.norm()),
                "representation norm": float(representation.weight.norm()),
                "attention effective rank": effective_rank(attention.weight),
                "representation effective rank": effective_rank(representation.weight),
                "cosine": cosine(attention.weight, representation.weight),
            }
        )
    return rows


def map_motion(store: RunStore, config: RunConfig) -> list[dict[str, Any]]:
    """`map_rows` before the first step and after every fifth one of a training.

    The training is that of `RunStore.get`, observed after every step; what was observed is stored under the run's
    content hash and read back when asked for again.
    """
    key = short_hash(canonical_json([MOTION_VERSION, EVERY, store.key(config)]))
    path = store_root() / "map_motion" / f"{key}.json"
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):  # missing or damaged
        pass
    rows: list[dict[str, Any]] = []

    def observe(step: int, model: ClickModel) -> None:
        if step % EVERY == 0:
            rows.extend(map_rows(step, model))

    def build() -> ClickModel:
        counts = counts_of(store.log(config.log), config.samples)
        return build_model(config.model, counts, config.training, seeds_of(config)[0])

    with computing():
        train(config, store.samples(config), build, store.progress, observe=observe, threads=store.threads)
    write_json(path, rows)
    return rows


@dataclass
class Comparison:
    """Validation losses of language models of every kind, size and seed. Stretches of text play the part that users
    play elsewhere."""

    runs: Mapping[tuple[Kind, int, int], LanguageRun]  # by kind, size, seed
    sizes: list[int]  # largest first
    seeds: range
    replicates: dict[tuple[Kind, int], Replicates]  # validation loss

    @classmethod
    def of(cls, runs: Mapping[tuple[Kind, int, int], LanguageRun]) -> "Comparison":
        """The comparison of runs; every combination of kind, size and seed must be present."""
        sizes = sorted({size for _, size, _ in runs}, reverse=True)
        seeds = range(1, max(seed for _, _, seed in runs) + 1)
        stretches = len(next(iter(runs.values())).losses)
        weights = leave_out(user_groups(np.arange(stretches)), stretches)  # (1 + G, W)
        weights /= weights.sum(1, keepdims=True)
        replicates = {
            (kind, size): np.stack([runs[kind, size, seed].losses for seed in seeds]) @ weights.T
            for kind in KINDS
            for size in sizes
        }
        return cls(runs, sizes, seeds, replicates)

    @property
    def stretches(self) -> int:
        """Number of stretches of validation text."""
        return len(next(iter(self.runs.values())).losses)

    def runs_of(self, kind: Kind, size: int) -> list[LanguageRun]:
        """The runs of a kind and size, one per seed."""
        return [self.runs[kind, size, seed] for seed in self.seeds]

    def gap(self, sizes: Sequence[int], kind: Kind = WITHOUT) -> Replicates:
        """(S, 1 + G) loss of a kind minus the loss with maps, mean over sizes, paired by seed and by stretch."""
        return np.mean([self.replicates[kind, size] - self.replicates[WITH, size] for size in sizes], axis=0)

    def claims(self) -> dict[str, Interval]:
        """P3's quantities, those that the sizes allow."""
        large = [size for size in self.sizes if size > LARGE]
        small = [size for size in self.sizes if size <= LARGE]
        found = {}
        if large and small:
            found["gap_small_minus_large"] = interval(self.gap(small) - self.gap(large))
        if large:
            found["loss_gap_above_16"] = interval(self.gap(large))
        return found

    def shape(self, size: int) -> tuple[str, str, str]:
        """What the paper's figure shows at a size, what the gap's interval shows here, and whether they match."""
        gap = interval(self.gap([size]))
        side = "maps help" if gap.low > 0 else "maps harm" if gap.high < 0 else "no gap to be seen"
        expected = "maps help" if size > LARGE else "no gap to be seen"
        undecided = expected == "maps help" and side == "no gap to be seen"
        return expected, side, "undecided" if undecided else "yes" if side == expected else "no"
