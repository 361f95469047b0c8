"""How projection maps move during training (paper, section 2.3): their size, their rank, and how far attention's
map turns away from representation's."""

import json
import math
from typing import Any

import torch
from torch import Tensor, nn

from dare_core.config import RunConfig
from dare_core.errors import InputError
from dare_core.files import canonical_json, short_hash, store_root, write_json
from dare_core.models.click_model import ClickModel
from dare_core.models.embeddings import SIDES, Module
from dare_core.models.projections import FieldMaps
from dare_core.models.zoo import build_model
from dare_core.schedule import computing
from dare_core.training.loop import seeds_of, train
from dare_core.training.runs import RunStore, counts_of

MOTION_VERSION = 1
"""Raised whenever something else is computed from the same training: stored motions are not reused."""
MODULES: tuple[Module, ...] = ("attention", "representation")
EVERY = 5
"""Steps between two looks at the maps."""


def effective_rank(weight: Tensor) -> float:
    """exp of the entropy of the singular values' shares, from 1 to the smaller side of the matrix
    (Roy and Vetterli 2007); 0 for a matrix of zeros."""
    values = torch.linalg.svdvals(weight.double())
    total = float(values.sum())
    if total == 0:
        return 0.0
    shares = values / total
    return math.exp(float(torch.special.entr(shares).sum()))


def cosine(first: Tensor, second: Tensor) -> float:
    """Cosine of two matrices of one shape, taken as vectors; 0 where one is all zeros."""
    return float(nn.functional.cosine_similarity(first.double().flatten(), second.double().flatten(), dim=0))


@torch.no_grad()
def map_lines(step: int, model: ClickModel) -> list[dict[str, Any]]:
    """Statistics of the maps per field and side: Frobenius norm and effective rank of attention's and of
    representation's map, and the cosine between the two."""
    maps = model.embeddings.maps
    if not isinstance(maps, FieldMaps):
        raise InputError("The motion of maps is followed in models with one linear map per field and module.")
    lines = []
    for field in maps.mapped:
        for side in SIDES:
            weights = {}
            for module in MODULES:
                layer = maps.layers[maps.name((module, side), field)]
                assert isinstance(layer, nn.Linear)
                weights[module] = layer.weight
            lines.append(
                {
                    "step": step,
                    "field": field,
                    "side": side,
                    **{f"{module} norm": float(weight.norm()) for module, weight in weights.items()},
                    **{f"{module} effective rank": effective_rank(weight) for module, weight in weights.items()},
                    "cosine": cosine(*weights.values()),
                }
            )
    return lines


def map_motion(store: RunStore, config: RunConfig) -> list[dict[str, Any]]:
    """`map_lines` before the first step and after every fifth one of a training.

    The training is that of `RunStore.get`, with a listener; what was heard is stored under the run's content
    hash and read back when asked for again.
    """
    key = short_hash(canonical_json([MOTION_VERSION, EVERY, store.key(config)]))
    path = store_root() / "map_motion" / f"{key}.json"
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):  # missing or damaged
        pass
    lines: list[dict[str, Any]] = []

    def observe(step: int, model: ClickModel) -> None:
        if step % EVERY == 0:
            lines.extend(map_lines(step, model))

    counts = counts_of(store.log(config.log), config.samples)
    with computing():
        train(
            config,
            store.samples(config),
            lambda: build_model(config.model, counts, config.training, seeds_of(config)[0]),
            store.progress,
            observe=observe,
            threads=store.threads,
        )
    write_json(path, lines)
    return lines
