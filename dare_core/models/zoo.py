"""Every model of the study as a row that says what it changes in TWIN, and how a model is built from its row."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn

from dare_core.config import ModelConfig, TrainingConfig
from dare_core.errors import InputError
from dare_core.models.attention import LearnedScore, PositionTwice
from dare_core.models.click_model import (
    DARE_TABLES,
    THREE_TABLES,
    TWIN_4E_TABLES,
    TWIN_TABLES,
    ClickModel,
    Form,
    ScaledDotProduct,
    TopK,
)
from dare_core.models.embeddings import FIELDS, Counts, EmbeddingScheme, Role, Sizes, Tables
from dare_core.models.projections import FieldMaps, JoinedMaps, by_module, by_role, linear, multilayer
from dare_core.models.search import ClusterAttention, Hamming, OwnTables, PaddedTopK, SameCategory, SignatureBuckets


@dataclass(frozen=True)
class BuildContext:
    """Inputs of the functions in `MODELS` that build a part of a model."""

    counts: Counts
    size: int  # of the representation, a field
    tables: Mapping[Role, Sizes]  # sizes of the tables of each role
    attention: Sizes  # sizes of the attention vectors, behind the maps
    top_k: int
    retrieve_padding: bool


class Cost(NamedTuple):
    """What search computes for a target. `formula`: multiplications, with N behaviours, K_A numbers a field,
    M clusters; `multiplications`: a behaviour, from K_A and N."""

    formula: str = "3 K_A N"
    multiplications: Callable[[int, int], float] = lambda size, length: 3 * size


@dataclass(frozen=True)
class ModelSpec:
    """A model's specification; every field defaults to TWIN's."""

    source: str
    change: str  # what it changes against TWIN, in one line
    assignment: Mapping[Role, str] = field(default_factory=lambda: TWIN_TABLES)
    fields: tuple[str, ...] = FIELDS
    maps: Callable[[BuildContext], nn.Module] | None = None
    table_factor: int = 1  # size of a table's rows, in sizes of the mapped vectors
    equalised: bool = False  # gradients of attention rescaled to representation's
    score: Callable[[BuildContext], nn.Module] = lambda context: ScaledDotProduct()
    search: Callable[[BuildContext], nn.Module] = lambda context: (
        PaddedTopK(context.top_k) if context.retrieve_padding else TopK(context.top_k)
    )
    search_fields: tuple[str, ...] = ()  # fields of the search's own tables, trained by the auxiliary loss
    form: Form = "target_aware"
    cost: Cost = Cost()
    published: Mapping[str, Any] | None = None  # constructor values of the authors' code, where it has the model


def maps_of(key: Callable[[Role], str], *fields: str, layer: Callable[[int], nn.Module] = linear) -> Any:
    """Maps a field (`FieldMaps`)."""
    return lambda context: FieldMaps(context.tables, key, fields, layer)


HIDDEN = 32
SIM = "Pi et al. 2020 (SIM), section 3.1"
BY_CATEGORY = Cost("0 (an index by category)", lambda size, length: 0)
BOTH = "for attention and for representation"


def projection(change: str, maps: Any, formula: str, maps_cost: Callable[[int], int], **published: Any) -> ModelSpec:
    """TWIN with maps after its tables. The maps cost `formula`: multiplications a behaviour, from K_A."""
    cost = Cost(f"3 K_A N, and {formula}", lambda size, length: 3 * size + maps_cost(size))
    return ModelSpec("published code; paper, appendix C", change, maps=maps, cost=cost, published=published)


def one_field(field: str, published: str) -> ModelSpec:
    """TWIN with maps on one field alone."""
    change = f"bias-free linear maps on the {field} alone, {BOTH}"
    maps = maps_of(by_module, field)
    return projection(change, maps, "K_A² N for the map", lambda size: size**2, model_name=published)


MODELS: dict[str, ModelSpec] = {
    "TWIN": ModelSpec(
        "Chang et al. 2023; with target-aware representation, paper section 4.1",
        "the reference: one set of tables, scaled dot product in search and modelling",
        published={"model_name": "twin"},
    ),
    "DIN": ModelSpec(
        "Zhou et al. 2018",
        "score by an MLP of target and behaviour; no position embedding",
        fields=("item", "category"),
        score=lambda context: LearnedScore(sum(context.attention.values())),
        cost=Cost("(36 · 4 K_A + 36) N", lambda size, length: 36 * 4 * size + 36),
        published={"model_name": "DIN", "attn_func": "learnable", "use_time": False},
    ),
    "DARE": ModelSpec(
        "paper, section 3",
        "two sets of tables: attention, representation",
        DARE_TABLES,
        published={"model_name": "DARE"},
    ),
    "SIM (hard)": ModelSpec(
        f"{SIM}, hard search",
        "retrieves the newest behaviours of the target's category, without a score; then TWIN's attention",
        search=lambda context: SameCategory(context.top_k, context.retrieve_padding, whole_history=True),
        cost=BY_CATEGORY,
    ),
    "SIM (soft)": ModelSpec(
        f"{SIM}, soft search",
        "search by inner product in tables of its own (item, category), trained by the auxiliary loss",
        search=lambda context: OwnTables(
            Tables(context.counts, dict.fromkeys(FIELDS, context.size), ("item", "category")),
            context.top_k,
            context.retrieve_padding,
        ),
        search_fields=("item", "category"),
        cost=Cost("2 K_A N", lambda size, length: 2 * size),
    ),
    "ETA": ModelSpec(
        "Chen et al. 2021, section 3",
        "search by Hamming distance of SimHash fingerprints, four bits a number of the vector; no gradient in search",
        search=lambda context: Hamming(
            context.attention, 4 * sum(context.attention.values()), context.top_k, context.retrieve_padding
        ),
        cost=Cost("0 (12 K_A N compared bits; fingerprints are stored)", lambda size, length: 0),
    ),
    "SDIM": ModelSpec(
        "Cao et al. 2022, section 4: 48 hashes, width 3",
        "no search: behaviours in the target's hash buckets are averaged, 16 groups of 3 bits",
        search=lambda context: SignatureBuckets(context.attention, hashes=48, width=3),
        cost=Cost("0 (48 N compared bits; signatures are stored)", lambda size, length: 0),
    ),
    "TWIN (hard)": ModelSpec(
        "paper, section 4.1; published code, hard search",
        "only the K newest behaviours of the target's category, in both heads; position counts twice in the score",
        score=lambda context: PositionTwice(),
        search=lambda context: SameCategory(context.top_k, context.retrieve_padding),
        cost=BY_CATEGORY,
        published={"model_name": "twin", "soft_search": False},
    ),
    "TWIN (w/ proj.)": ModelSpec(
        "paper, section 2.3, as the published command runs it",
        "a bias-free linear map for each field and role",
        maps=maps_of(by_role, *FIELDS),
        cost=Cost("3 K_A N, and 3 K_A² N for the maps", lambda size, length: 3 * size + 3 * size**2),
        published={"model_name": "projection"},
    ),
    "TWIN (w/o TR)": ModelSpec(
        "Chang et al. 2023; paper, section 4.1",
        "head on [target, history] without their product",
        form="concatenation",
        published={"model_name": "twin", "use_cross_feature": False},
    ),
    "TWIN (product)": ModelSpec(
        "paper, figure 10c",
        "head on the product of target and history alone",
        form="product",
        published={"model_name": "twin", "only_odot": True},
    ),
    "TWIN-V2": ModelSpec(
        "Si et al. 2024",
        "attention over hierarchical clusters of the behaviours, score plus log of the cluster's size",
        search=lambda context: ClusterAttention(context.top_k, context.counts.history),
        cost=Cost("3 K_A M, M clusters of at most 20", lambda size, length: 3 * size / min(20, length)),
    ),
    "TWIN-4E": ModelSpec(
        "paper, section 3.4",
        "four sets of tables: target / behaviour x attention / representation",
        TWIN_4E_TABLES,
        published={"model_name": "four_embedding"},
    ),
    "three tables": ModelSpec(
        "published code",
        "three sets of tables: attention of target, attention of behaviours, representation",
        THREE_TABLES,
        published={"model_name": "three_embedding"},
    ),
    "DARE (w/o TR)": ModelSpec(
        "paper, section 4.4",
        "two sets of tables; head on [target, history] without their product",
        DARE_TABLES,
        form="concatenation",
        published={"model_name": "DARE", "use_cross_feature": False},
    ),
    "DARE (product)": ModelSpec(
        "paper, figure 10c",
        "two sets of tables; head on the product of target and history alone",
        DARE_TABLES,
        form="product",
        published={"model_name": "DARE", "only_odot": True},
    ),
    "projection (after concatenation)": projection(
        "four linear maps with bias on the concatenated fields, one a role",
        lambda context: JoinedMaps(context.tables, by_role),
        "9 K_A² N for the maps",
        lambda size: 9 * size**2,
        model_name="projection",
        mlp_position_after_concat=True,
    ),
    "projection (two linear)": projection(
        "two linear maps with bias on the concatenated fields: attention, representation",
        lambda context: JoinedMaps(context.tables, by_module),
        "9 K_A² N for the maps",
        lambda size: 9 * size**2,
        model_name="projection_two_linear",
        mlp_position_after_concat=True,
    ),
    "projection (MLP with one hidden layer)": projection(
        f"an MLP (d -> {HIDDEN} -> d) for each field, {BOTH}",
        maps_of(by_module, *FIELDS, layer=multilayer(HIDDEN)),
        f"3 · 2 · {HIDDEN} K_A N for the maps",
        lambda size: 6 * HIDDEN * size,
        model_name="projection_with_mlp",
        mlp_hidden_layer=[HIDDEN],
    ),
    "projection (MLP with two hidden layers)": projection(
        f"an MLP (d -> {HIDDEN} -> {HIDDEN} -> d) for each field, {BOTH}",
        maps_of(by_module, *FIELDS, layer=multilayer(HIDDEN, HIDDEN)),
        f"3 ({HIDDEN}² + 2 · {HIDDEN} K_A) N for the maps",
        lambda size: 3 * (HIDDEN**2 + 2 * HIDDEN * size),
        model_name="projection_with_mlp",
        mlp_hidden_layer=[HIDDEN, HIDDEN],
    ),
    "projection (no item)": projection(
        f"bias-free linear maps on category and position, {BOTH}",
        maps_of(by_module, "category", "position"),
        "2 K_A² N for the maps",
        lambda size: 2 * size**2,
        model_name="projection_no_item",
    ),
    "projection (only position)": one_field("position", "projection_only_time"),
    "projection (only category)": one_field("category", "projection_only_category"),
    "projection (only item)": one_field("item", "projection_only_item"),
    "large embedding with small output": ModelSpec(
        "published code; paper, appendix C, whose score splits the fields elsewhere",
        f"tables twice as wide, and bias-free maps a field down to the size, {BOTH}",
        maps=lambda context: FieldMaps(context.tables, by_module, FIELDS, partial(linear, out=context.size)),
        table_factor=2,
        cost=Cost("3 K_A N, and 6 K_A² N for the maps", lambda size, length: 3 * size + 6 * size**2),
    ),
    "equalised gradients": ModelSpec(
        "published code; paper, appendix C",
        "the attention gradient on each table is rescaled to the norm of the representation gradient",
        equalised=True,
    ),
}


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
    assignment = spec.assignment
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
    context = BuildContext(
        counts,
        config.size,
        {role: tables[name] for role, name in assignment.items()},
        dict.fromkeys(spec.fields, attention_size),
        config.top_k,
        "retrieve_padding" in training.official,
    )
    return ClickModel(
        EmbeddingScheme(
            assignment, tables, counts, spec.fields, spec.maps(context) if spec.maps else None, spec.equalised
        ),
        spec.score(context),
        spec.search(context),
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
