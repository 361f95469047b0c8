"""The authors' published models: their constructor arguments and weight names, served by ours.

Only names and formats are dealt with here; what is computed is `models`.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dare_core.embeddings import FIELDS, Counts, EmbeddingScheme, Role, decoupled_tables, shared_tables
from dare_core.errors import InputError
from dare_core.models import ClickModel
from dare_core.search import LearnedScore, ScaledDotProduct, TopK

TIME_ROWS = 2_000
"""Rows of the published position table."""
ASSIGNMENTS = {"DARE": decoupled_tables, "twin": shared_tables, "DIN": shared_tables}
FIELD_NAMES = {"item": "item", "category": "category", "position": "time"}
PARTS = (
    ("main_mlp.", "main_head."),
    ("auxiliary_mlp.", "auxiliary_head."),
    ("attention_model.main_model.0.", "score.hidden."),
    ("attention_model.main_model.1.", "score.activation."),
    ("attention_model.main_model.2.", "score.out."),
)


def table_name(field: str, role: Role) -> str:
    """The published name of the table that serves a field and a role."""
    side = "behavior" if role[1] == "behaviour" else role[1]
    return f"{FIELD_NAMES[field]}_id_embedding_layer_for_{role[0]}_of_{side}.weight"


def build_official(config: Mapping[str, Any]) -> ClickModel:
    """A model from the published constructor's arguments, computing as that code does."""
    name = config["model_name"]
    if name not in ASSIGNMENTS:
        raise InputError(f"model_name {name!r} is not served; there are: {', '.join(ASSIGNMENTS)}.")
    assignment = ASSIGNMENTS[name]()
    size = config["item_embedding_dim"]
    attention_size = config.get("attention_item_embedding_dim", size)
    sizes = {table: attention_size if role[0] == "attention" else size for role, table in assignment.items()}
    learned = config["attn_func"] == "learnable"
    fields = FIELDS if config["use_time"] else FIELDS[:2]
    counts = Counts(config["item_n"] - 1, config["cate_n"] - 1, TIME_ROWS - 1)
    return ClickModel(
        EmbeddingScheme(assignment, sizes, counts, fields),
        LearnedScore(2 * attention_size) if learned else ScaledDotProduct(),
        TopK(config["top_k"], retrieve_padding=True),
        "target_aware" if config["use_cross_feature"] else "concatenation",
        len(fields) * size,
        config["use_aux_loss"],
    )


def our_names(model: ClickModel) -> dict[str, str]:
    """Published name -> our name of every weight. Tables shared by roles appear once for each role."""
    names: dict[str, str] = {}
    for role, tables in model.embeddings.assignment.items():
        for field in model.embeddings.fields:
            names[table_name(field, role)] = f"embeddings.sets.{tables}.tables.{field}"
    for own in model.state_dict():
        for published, prefix in PARTS:
            if own.startswith(prefix):
                names[published + own.removeprefix(prefix)] = own
    return names


def load_weights(model: ClickModel, weights: Mapping[str, Tensor]) -> None:
    """Load weights under their published names; tables that the model does not have are ignored.

    Raises InputError when a weight is missing or has another shape.
    """
    state = model.state_dict()
    loaded: dict[str, Tensor] = {}
    for published, own in our_names(model).items():
        if published not in weights:
            raise InputError(f"The weights lack {published!r}: are they of another model?")
        if weights[published].shape != state[own].shape:
            raise InputError(
                f"{published!r} has shape {tuple(weights[published].shape)}, the model needs {tuple(state[own].shape)}."
            )
        loaded[own] = weights[published].to(state[own].dtype)
    model.load_state_dict(loaded)


def labelled_loss(logits: Tensor, label: Tensor) -> Tensor:
    """Cross-entropy of single samples: logits (B, 2), click first; label (B,) 1 for a click."""
    log_probability = (torch.softmax(logits, -1) + 1e-8).log()
    return -torch.where(label.bool(), log_probability[:, 0], log_probability[:, 1]).mean()
