"""The models: embeddings x search x head, by name, in one table."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

import torch
from torch import Tensor, nn

from dare_core.config import ModelConfig, TrainingConfig
from dare_core.embeddings import (
    FIELDS,
    Batch,
    Counts,
    EmbeddingScheme,
    Role,
    Rows,
    Tables,
    Vectors,
    decoupled_tables,
    shared_tables,
)
from dare_core.errors import InputError
from dare_core.search import LearnedScore, ScaledDotProduct, TopK, attend

Form = Literal["target_aware", "concatenation", "product"]
"""Features of the head from target v and pooled history h: [v, h, v * h], [v, h] or [v * h]."""
PARTS: Mapping[Form, int] = {"target_aware": 3, "concatenation": 2, "product": 1}


class Head(nn.Sequential):
    """BatchNorm, then linear layers with PReLU between them; the last gives two logits (click first)."""

    def __init__(self, *widths: int) -> None:
        layers: list[nn.Module] = [nn.BatchNorm1d(widths[0])]
        for width_in, width_out in zip(widths, widths[1:], strict=False):
            layers += [nn.Linear(width_in, width_out), nn.PReLU()]
        super().__init__(*layers, nn.Linear(widths[-1], 2))


@dataclass(frozen=True)
class Output:
    """What a forward pass gives; shapes as in `Batch`, F features, N behaviours."""

    logits: Tensor  # (H, C, 2), click first
    auxiliary_logits: Tensor | None  # (H, C, 2), from attention over the whole history
    scores: Tensor  # (H, C, N), before softmax, padding included
    weights: Tensor  # (H, C, N), of the retrieved behaviours
    features: Tensor  # (H, C, F), input of the main head
    vectors: Vectors

    @property
    def probability(self) -> Tensor:
        """(H, C) probability of a click; 1e-8 is added as in the published code."""
        return torch.softmax(self.logits, -1)[..., 0] + 1e-8


def cross_entropy(logits: Tensor) -> Tensor:
    """Mean cross-entropy of logits (H, C, 2) whose first candidate is clicked and whose others are not.

    As published: log(softmax + 1e-8).
    """
    log_probability = (torch.softmax(logits, -1) + 1e-8).log()
    return -(log_probability[:, :1, 0].sum() + log_probability[:, 1:, 1].sum()) / logits[..., 0].numel()


class ClickModel(nn.Module):
    """A click-through model: embedding scheme x score x search x head (paper, figure 1).

    All parts are given; the models of the study differ in nothing else.
    """

    def __init__(
        self,
        embeddings: EmbeddingScheme,
        score: nn.Module,
        search: nn.Module,
        form: Form,
        width: int,
        auxiliary: bool = True,
    ) -> None:
        super().__init__()
        self.embeddings = embeddings
        self.score = score
        self.search = search
        self.form: Form = form
        self.main_head = Head(PARTS[form] * width, 200, 80)
        self.auxiliary_head = Head(PARTS[form] * width, 200) if auxiliary else None

    def features(self, target: Rows, behaviour: Rows, weights: Tensor) -> Tensor:
        """Head input (M, H, C, F) for M sets of weights (M, H, C, N), pooled in one product a field."""
        several, histories, candidates, _ = weights.shape
        stacked = weights.transpose(0, 1).flatten(1, 2)  # (H, M * C, N)
        h = torch.cat([stacked @ rows for rows in behaviour.values()], -1)  # (H, M * C, W)
        h = h.unflatten(1, (several, candidates)).transpose(0, 1)
        v = torch.cat([rows.expand(histories, candidates, -1) for rows in target.values()], -1)
        v = v.expand_as(h)
        if self.form == "product":
            return v * h
        parts = [v, h, v * h] if self.form == "target_aware" else [v, h]
        return torch.cat(parts, -1)

    def forward(self, batch: Batch) -> Output:
        vectors = self.embeddings(batch)
        query, key = vectors.used["attention", "target"], vectors.used["attention", "behaviour"]
        scores = self.score(query, key)
        weights = self.search(scores, query, key, batch)
        stacked = [weights]
        if self.auxiliary_head is not None and self.training:
            stacked.append(attend(scores, batch.valid.unsqueeze(1).expand_as(scores)))
        features = self.features(
            vectors.used["representation", "target"],
            vectors.used["representation", "behaviour"],
            torch.stack(stacked),
        )
        logits = self.main_head(features[0].flatten(0, 1)).unflatten(0, weights.shape[:2])
        auxiliary = None
        if self.auxiliary_head is not None and self.training:
            auxiliary = self.auxiliary_head(features[1].flatten(0, 1)).unflatten(0, weights.shape[:2])
        return Output(logits, auxiliary, scores, weights, features[0], vectors)

    def losses(self, output: Output) -> tuple[Tensor, Tensor]:
        """Main and auxiliary cross-entropy; the auxiliary one is 0 where there is no second head."""
        main = cross_entropy(output.logits)
        if output.auxiliary_logits is None:
            return main, torch.zeros_like(main)
        return main, cross_entropy(output.auxiliary_logits)

    def initialise(self, seed: int, scale: float, everything: bool = False) -> None:
        """Embeddings and linear weights ~ N(0, scale); biases, BatchNorm and PReLU keep their layers' own.

        `everything`: every parameter but biases, BatchNorm scales and PReLU slopes included, as the
        published code does.
        """
        generator = torch.Generator().manual_seed(seed)
        for module in self.modules():
            if isinstance(module, nn.Linear):  # the layer's own rule, but from our generator
                module.reset_parameters()
                bound = module.in_features**-0.5
                if module.bias is not None:
                    nn.init.uniform_(module.bias, -bound, bound, generator=generator)
                nn.init.normal_(module.weight, 0.0, scale, generator=generator)
            elif isinstance(module, Tables):
                for table in module.tables.values():
                    nn.init.normal_(table, 0.0, scale, generator=generator)
            elif everything and isinstance(module, nn.BatchNorm1d | nn.PReLU):
                nn.init.normal_(module.weight, 0.0, scale, generator=generator)

    def embedding_parameters(self) -> list[nn.Parameter]:
        """The embedding tables."""
        return list(self.embeddings.sets.parameters())

    def dense_parameters(self) -> list[nn.Parameter]:
        """Everything else: heads, learned scores, maps."""
        tables = {id(table) for table in self.embedding_parameters()}
        return [parameter for parameter in self.parameters() if id(parameter) not in tables]


@dataclass(frozen=True)
class ModelSpec:
    """A row of the table of models."""

    source: str
    change: str  # what it changes against TWIN, in one line
    assignment: Callable[[], dict[Role, str]]
    score: Callable[[int], nn.Module]  # from the attention width of the content fields
    fields: tuple[str, ...] = FIELDS
    form: Form = "target_aware"


MODELS: dict[str, ModelSpec] = {
    "TWIN": ModelSpec(
        "Chang et al. 2023; with target-aware representation, paper section 4.1",
        "the reference: one set of tables, scaled dot product in search and modelling",
        shared_tables,
        lambda width: ScaledDotProduct(),
    ),
    "DIN": ModelSpec(
        "Zhou et al. 2018",
        "score by an MLP of target and behaviour; no position embedding",
        shared_tables,
        LearnedScore,
        fields=("item", "category"),
    ),
    "DARE": ModelSpec(
        "paper, section 3",
        "two sets of tables: attention, representation",
        decoupled_tables,
        lambda width: ScaledDotProduct(),
    ),
}


def model_spec(name: str) -> ModelSpec:
    """The row of a name; an unknown name is refused with the nearest one."""
    if name not in MODELS:
        near = get_close_matches(name.upper(), MODELS, 1, 0.3)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise InputError(f"There is no model {name!r}.{hint} There are: {', '.join(MODELS)}.")
    return MODELS[name]


def build_model(
    config: ModelConfig, counts: Counts, training: TrainingConfig | None = None, seed: int = 0
) -> ClickModel:
    """A model by its configuration, initialised from a seed.

    Raises InputError for a model that is not in the table, or an attention size of its own where attention
    and representation share their tables.
    """
    training = training or TrainingConfig()
    spec = model_spec(config.name)
    assignment = spec.assignment()
    attention_size = config.attention_size or config.size
    sizes = {name: attention_size if role[0] == "attention" else config.size for role, name in assignment.items()}
    if any(sizes[name] != attention_size for role, name in assignment.items() if role[0] == "attention"):
        raise InputError(
            f"{config.name} has one table for attention and representation: attention_size "
            f"{config.attention_size} must be left out or equal to size {config.size}."
        )
    model = ClickModel(
        EmbeddingScheme(assignment, sizes, counts, spec.fields),
        spec.score(2 * attention_size),
        TopK(config.top_k, "retrieve_padding" in training.official),
        spec.form,
        len(spec.fields) * config.size,
        training.auxiliary_loss,
    )
    model.initialise(seed, training.initial_scale, "initialise_all" in training.official)
    return model
