"""From a row of the table of models to a model."""

from difflib import get_close_matches
from typing import Any

import torch

from dare_core.config import ModelConfig, TrainingConfig
from dare_core.errors import InputError
from dare_core.models.click_model import ClickModel
from dare_core.models.embeddings import Counts, EmbeddingScheme
from dare_core.models.zoo import MODELS, ModelSpec, Parts

__all__ = ["MODELS", "ClickModel", "ModelSpec", "build_model", "model_spec", "model_table"]


def model_spec(name: str) -> ModelSpec:
    """The row of a name; an unknown name is refused with the nearest one."""
    if name not in MODELS:
        lower = {known.lower(): known for known in MODELS}
        near = get_close_matches(name.lower(), lower, 1, 0.3)
        hint = f" Did you mean {lower[near[0]]!r}?" if near else ""
        raise InputError(f"There is no model {name!r}.{hint} There are: {', '.join(MODELS)}.")
    return MODELS[name]


def compose(config: ModelConfig, counts: Counts, training: TrainingConfig) -> ClickModel:
    """A model by its configuration, its weights not yet drawn.

    Raises InputError for a model that is not in the table, an attention size of its own where attention
    and representation share their tables, or a search that cannot be trained.
    """
    spec = model_spec(config.name)
    assignment = spec.assignment()
    attention_size = config.attention_size or config.size
    sizes = {name: attention_size if role[0] == "attention" else config.size for role, name in assignment.items()}
    if any(sizes[name] != attention_size for role, name in assignment.items() if role[0] == "attention"):
        raise InputError(
            f"{config.name} has one table for attention and representation: attention_size "
            f"{config.attention_size} must be left out or equal to size {config.size}."
        )
    if spec.search_fields and not training.auxiliary_loss:
        raise InputError(f"{config.name} trains its search by the auxiliary loss: auxiliary_loss must stay on.")
    tables = {name: dict.fromkeys(spec.fields, spec.table_factor * size) for name, size in sizes.items()}
    parts = Parts(
        counts,
        config.size,
        {role: tables[name] for role, name in assignment.items()},
        dict.fromkeys(spec.fields, attention_size),
        config.top_k,
        "retrieve_padding" in training.official,
    )
    return ClickModel(
        EmbeddingScheme(
            assignment, tables, counts, spec.fields, spec.maps(parts) if spec.maps else None, spec.equalised
        ),
        spec.score(parts),
        spec.search(parts),
        spec.form,
        len(spec.fields) * config.size,
        training.auxiliary_loss,
        len(spec.search_fields) * config.size,
    )


def build_model(
    config: ModelConfig, counts: Counts, training: TrainingConfig | None = None, seed: int = 0
) -> ClickModel:
    """A model by its configuration, initialised from a seed. Raises InputError as `compose`."""
    training = training or TrainingConfig()
    model = compose(config, counts, training)
    model.initialise(seed, training.initial_scale, "initialise_all" in training.official, training.map_initial)
    return model


def model_table(counts: Counts, size: int) -> list[dict[str, Any]]:
    """The table of models at an embedding size: source, change, parameters and search cost of each.

    Nothing is allocated, so `counts` may be those of a log of any size.
    """
    rows = []
    for name, spec in MODELS.items():
        with torch.device("meta"):
            model = compose(ModelConfig(name=name, size=size), counts, TrainingConfig())
        rows.append(
            {
                "model": name,
                "source": spec.source,
                "change against TWIN": spec.change,
                "parameters": sum(parameter.numel() for parameter in model.parameters()),
                "search cost": spec.cost.formula,
                "multiplications a behaviour": spec.cost.multiplications(size, counts.history),
            }
        )
    return rows
