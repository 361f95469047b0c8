"""The authors' published models: their constructor arguments and weight names, served by ours.

Only names and shapes are dealt with here; what is computed is `models.click_model` and its parts, and
files are `weights`.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dare_core.data.samples import Batch
from dare_core.errors import InputError
from dare_core.models.attention import LearnedScore, PositionTwice
from dare_core.models.click_model import TWIN_TABLES, WIDTHS, ClickModel, Form, Head, ScaledDotProduct
from dare_core.models.embeddings import FIELDS, Counts, EmbeddingScheme, Role, Rows, concatenated
from dare_core.models.projections import FieldMaps, JoinedMaps, by_module, by_role, linear, multilayer
from dare_core.models.results import TINY, PooledHistory
from dare_core.models.search import PaddedTopK, SameCategory
from dare_core.published.config import (
    ASSIGNMENTS,
    FIELD_NAMES,
    MAPPED,
    SMALL_OUTPUT,
    TIME_ROWS,
    OfficialConfig,
    official_config,
)

POSITIONS = ".tables.position"
"""How our names of position tables end."""
PARTS = (
    ("main_mlp.", "main_head."),
    ("auxiliary_mlp.", "auxiliary_head."),
    ("attention_model.main_model.0.", "score.hidden."),
    ("attention_model.main_model.1.", "score.activation."),
    ("attention_model.main_model.2.", "score.out."),
)


class SplitFromTheEnd(nn.Module):
    """The published score where its split between content and position is not at the position's own size.

    The vectors of all fields are concatenated; the last `last` numbers are scaled by 1 / sqrt(last), those before
    them by 1 / sqrt(their number): not a number where nothing is left (published code, "large embedding, small
    output" from d = 48 on). In hard search (`position_twice`) the first part takes the whole vector.
    """

    def __init__(self, last: int, position_twice: bool) -> None:
        super().__init__()
        self.last = last
        self.position_twice = position_twice

    def forward(self, target: Rows, behaviour: Rows) -> Tensor:
        """Scores (H, C, N)."""
        q, k = concatenated(target), concatenated(behaviour).mT
        first = q.shape[-1] if self.position_twice else max(q.shape[-1] - self.last, 0)
        content = q[..., :first] @ k[..., :first, :] / math.sqrt(first)
        return content + q[..., -self.last :] @ k[..., -self.last :, :] / math.sqrt(self.last)


class MeanHistory(ClickModel):
    """A model whose main head is also given the mean over the whole history (`use_long_seq_average`)."""

    def __init__(
        self, embeddings: EmbeddingScheme, score: nn.Module, search: nn.Module, form: Form, width: int
    ) -> None:
        super().__init__(embeddings, score, search, form, width)
        self.main_head = Head((2 * WIDTHS[form] - (form != "product")) * width, 200, 80)

    def pool(self, batch: Batch) -> PooledHistory:
        """The pooled history and, after it, the mean: the published one divides by one more than there are."""
        pooled = super().pool(batch)
        e = concatenated(pooled.vectors.used["representation", "behaviour"])
        considered = pooled.search.considered.to(e.dtype)
        mean = considered @ e / (considered.sum(-1, keepdim=True) + 1)
        return replace(pooled, h=torch.cat([pooled.h, mean], -1))

    def features(self, v: Tensor, h: Tensor) -> Tensor:
        """[v, h, mean, v * h, v * mean], or the parts of it that the form names."""
        product = torch.cat([v, v], -1) * h
        parts = {"target_aware": [v, h, product], "concatenation": [v, h], "product": [product]}
        return torch.cat(parts[self.form], -1)

    def in_one_pass(self) -> bool:
        """Never."""
        return False


def maps_of(config: OfficialConfig, sizes: Mapping[Role, Mapping[str, int]]) -> nn.Module | None:
    """The maps after the tables: names and shapes as in the published code."""
    if config.model_name == "projection":
        if config.mlp_position_after_concat:
            return JoinedMaps(sizes, by_role)
        return FieldMaps(sizes, by_role, config.fields, linear)
    if config.model_name == "projection_two_linear":
        return JoinedMaps(sizes, by_module)
    if config.model_name == "projection_with_mlp":
        return FieldMaps(sizes, by_module, config.fields, multilayer(*config.mlp_hidden_layer or ()))
    if config.shrinks:
        return FieldMaps(sizes, by_module, config.fields, partial(linear, out=SMALL_OUTPUT))
    if config.model_name in MAPPED:
        mapped = tuple(field for field in MAPPED[config.model_name] if field in config.fields)
        return FieldMaps(sizes, by_module, mapped, linear)
    return None


def build_official(values: Mapping[str, Any] | OfficialConfig) -> ClickModel:
    """A model from the published constructor's arguments, computing as that code does.

    It always has the auxiliary head, as theirs has; whether its loss counts is `use_aux_loss`. Raises
    InputError for arguments that are not served.
    """
    config = values if isinstance(values, OfficialConfig) else official_config(values)
    assignment = ASSIGNMENTS.get(config.model_name, TWIN_TABLES)
    full = {"attention": config.all_attention_sizes, "representation": config.all_sizes}
    sizes = {role: {field: full[role[0]][field] for field in config.fields} for role in assignment}
    hard = not config.soft_search
    score: nn.Module
    if config.attn_func == "learnable":
        score = LearnedScore(sum(sizes["attention", "target"].values()))
    elif config.shrinks or not config.use_time:
        score = SplitFromTheEnd(config.all_attention_sizes["position"], hard)
    else:
        score = PositionTwice() if hard else ScaledDotProduct()
    form: Form = "target_aware" if config.use_cross_feature else "concatenation"
    width = sum(sizes["representation", "target"].values())
    return (MeanHistory if config.use_long_seq_average else ClickModel)(
        EmbeddingScheme(
            assignment,
            {name: sizes[role] for role, name in assignment.items()},
            Counts(config.item_n - 1, config.cate_n - 1, TIME_ROWS - 1),
            config.fields,
            maps_of(config, sizes),
        ),
        score,
        SameCategory(config.top_k, True) if hard else PaddedTopK(config.top_k),
        "product" if config.only_odot else form,
        SMALL_OUTPUT * len(FIELDS) if config.shrinks else width,
    )


def side_name(role: Role) -> str:
    """`attention_of_target` and so on."""
    return f"{role[0]}_of_{'behavior' if role[1] == 'behaviour' else role[1]}"


def table_name(field: str, role: Role) -> str:
    """The published name of the table that serves a field and a role."""
    return f"{FIELD_NAMES[field]}_id_embedding_layer_for_{side_name(role)}.weight"


def our_names(model: ClickModel) -> dict[str, str]:
    """Published name -> our name of every weight. What is shared by roles appears once for each role."""
    names: dict[str, str] = {}
    layers: dict[str, str] = {}  # published prefix of a map -> ours
    maps = model.embeddings.maps
    for role, tables in model.embeddings.assignment.items():
        for field in model.embeddings.fields:
            names[table_name(field, role)] = f"embeddings.sets.{tables}.tables.{field}"
        if isinstance(maps, JoinedMaps):
            layers[f"mlp_for_{side_name(role)}."] = maps.key(role)
        if isinstance(maps, FieldMaps):
            for field in maps.mapped:
                layers[f"mlp_for_{FIELD_NAMES[field]}_{side_name(role)}."] = maps.name(role, field)
    parts = [*PARTS, *((published, f"embeddings.maps.layers.{own}.") for published, own in layers.items())]
    for own in model.state_dict():
        for published, prefix in parts:
            if own.startswith(prefix):
                names[published + own.removeprefix(prefix)] = own
    return names


def unused_tables(model: ClickModel) -> list[str]:
    """Position tables that the published code makes and stores though its model reads no position."""
    fields = [field for field in FIELDS if field not in model.embeddings.fields]
    return [table_name(field, role) for field in fields for role in model.embeddings.assignment]


def load_weights(model: ClickModel, weights: Mapping[str, Tensor]) -> None:
    """Load weights under their published names.

    Raises InputError when a weight is missing, is not of the model, has another shape, or differs between
    roles that the model lets share it.
    """
    state, names = model.state_dict(), our_names(model)
    loaded: dict[str, Tensor] = {}
    unknown = sorted(set(weights) - set(names) - set(unused_tables(model)))
    if unknown:
        raise InputError(f"The weights hold {unknown[0]!r}, which the model has not: are they of another model?")
    for published, own in names.items():
        if published not in weights:
            raise InputError(f"The weights lack {published!r}: are they of another model?")
        weight = weights[published]
        if weight.shape != state[own].shape:
            raise InputError(
                f"{published!r} has shape {tuple(weight.shape)}, the model needs {tuple(state[own].shape)}."
            )
        before = loaded.setdefault(own, weight)
        if before.data_ptr() != weight.data_ptr() and not torch.equal(before, weight):
            raise InputError(f"{published!r} differs from what the model shares it with: are they of another model?")
    model.load_state_dict({name: weight.to(state[name].dtype) for name, weight in loaded.items()})


def published_weights(model: ClickModel, unused_size: int = 0) -> dict[str, Tensor]:
    """A model's weights under their published names, as that code would save them.

    Position tables get the published number of rows and unused ones are zeros (both are read by nothing),
    the latter of `unused_size` numbers per row. Shared weights share their memory, as `torch.save` keeps it.
    """
    padded = {
        own: nn.functional.pad(weight, (0, 0, 0, TIME_ROWS - len(weight))) if own.endswith(POSITIONS) else weight
        for own, weight in model.state_dict().items()
    }
    weights = {published: padded[own] for published, own in our_names(model).items()}
    return weights | dict.fromkeys(unused_tables(model) if unused_size else [], torch.zeros(TIME_ROWS, unused_size))


def labelled_loss(logits: Tensor, label: Tensor) -> Tensor:
    """Cross-entropy of single samples: logits (B, 2), click first; label (B,) 1 for a click."""
    return nn.functional.nll_loss((torch.softmax(logits, -1) + TINY).log(), 1 - label)
