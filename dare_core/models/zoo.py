"""The table of models: each row is a composition, and what it leaves out is TWIN's."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from dare_core.models.click_model import Form
from dare_core.models.clusters import ClusterAttention
from dare_core.models.embeddings import (
    FIELDS,
    Counts,
    Role,
    Sizes,
    Tables,
    decoupled_tables,
    four_tables,
    shared_tables,
    three_tables,
)
from dare_core.models.hashing import Hamming, SignatureBuckets
from dare_core.models.kernels.learned_score import LearnedScore
from dare_core.models.projections import FieldMaps, JoinedMaps, by_module, by_role, linear, linear_to, multilayer
from dare_core.models.search import OwnTables, SameCategory, ScaledDotProduct, TopK


@dataclass(frozen=True)
class Parts:
    """What a row's functions may need to make their part of a model."""

    counts: Counts
    size: int  # of the representation, a field
    tables: Mapping[Role, Sizes]  # sizes of the tables of each role
    attention: Sizes  # sizes of the attention vectors, behind the maps
    top_k: int
    retrieve_padding: bool


@dataclass(frozen=True)
class Cost:
    """What search computes for a target. `formula`: multiplications, with N behaviours, K_A numbers a field,
    M clusters; `multiplications`: a behaviour, from K_A and N."""

    formula: str = "3 K_A N"
    multiplications: Callable[[int, int], float] = lambda size, length: 3 * size


@dataclass(frozen=True)
class ModelSpec:
    """A row of the table of models. What is left out is TWIN's."""

    source: str
    change: str  # what it changes against TWIN, in one line
    assignment: Callable[[], dict[Role, str]] = shared_tables
    fields: tuple[str, ...] = FIELDS
    maps: Callable[[Parts], nn.Module] | None = None
    table_factor: int = 1  # size of a table's rows, in sizes of the mapped vectors
    equalised: bool = False  # gradients of attention rescaled to representation's
    score: Callable[[Parts], nn.Module] = lambda parts: ScaledDotProduct()
    search: Callable[[Parts], nn.Module] = lambda parts: TopK(parts.top_k, parts.retrieve_padding)
    search_fields: tuple[str, ...] = ()  # fields of the search's own tables, trained by the auxiliary loss
    form: Form = "target_aware"
    cost: Cost = Cost()
    published: Mapping[str, Any] | None = None  # constructor values of the authors' code, where it has the model


def maps_of(key: Callable[[Role], str], *fields: str, layer: Callable[[int], nn.Module] = linear) -> Any:
    """Maps a field (`FieldMaps`)."""
    return lambda parts: FieldMaps(parts.tables, key, fields, layer)


def joined_maps(key: Callable[[Role], str]) -> Any:
    """Maps on the concatenated fields (`JoinedMaps`)."""
    return lambda parts: JoinedMaps(parts.tables, key)


PROJECTION = "published code; paper, appendix C"
PER_FIELD = Cost("3 K_A N, and 3 K_A² N for the maps", lambda size, length: 3 * size + 3 * size**2)
JOINED = Cost("3 K_A N, and 9 K_A² N for the maps", lambda size, length: 3 * size + 9 * size**2)
ONE_FIELD = Cost("3 K_A N, and K_A² N for the map", lambda size, length: 3 * size + size**2)
HIDDEN = 32
SIM = "Pi et al. 2020 (SIM), section 3.1"

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
        score=lambda parts: LearnedScore(sum(parts.attention.values())),
        cost=Cost("(36 · 4 K_A + 36) N", lambda size, length: 36 * 4 * size + 36),
        published={"model_name": "DIN", "attn_func": "learnable", "use_time": False},
    ),
    "DARE": ModelSpec(
        "paper, section 3",
        "two sets of tables: attention, representation",
        decoupled_tables,
        published={"model_name": "DARE"},
    ),
    "SIM (hard)": ModelSpec(
        f"{SIM}, hard search",
        "retrieves the newest behaviours of the target's category, without a score; then TWIN's attention",
        search=lambda parts: SameCategory(parts.top_k, parts.retrieve_padding, whole_history=True),
        cost=Cost("0 (an index by category)", lambda size, length: 0),
    ),
    "SIM (soft)": ModelSpec(
        f"{SIM}, soft search",
        "search by inner product in tables of its own (item, category), trained by the auxiliary loss",
        search=lambda parts: OwnTables(
            Tables(parts.counts, dict.fromkeys(FIELDS, parts.size), ("item", "category")),
            parts.top_k,
            parts.retrieve_padding,
        ),
        search_fields=("item", "category"),
        cost=Cost("2 K_A N", lambda size, length: 2 * size),
    ),
    "ETA": ModelSpec(
        "Chen et al. 2021, section 3",
        "search by Hamming distance of SimHash fingerprints, four bits a number of the vector; no gradient in search",
        search=lambda parts: Hamming(
            parts.attention, 4 * sum(parts.attention.values()), parts.top_k, parts.retrieve_padding
        ),
        cost=Cost("0 (12 K_A N compared bits; fingerprints are stored)", lambda size, length: 0),
    ),
    "SDIM": ModelSpec(
        "Cao et al. 2022, section 4: 48 hashes, width 3",
        "no search: behaviours in the target's hash buckets are averaged, 16 groups of 3 bits",
        search=lambda parts: SignatureBuckets(parts.attention, hashes=48, width=3),
        cost=Cost("0 (48 N compared bits; signatures are stored)", lambda size, length: 0),
    ),
    "TWIN (hard)": ModelSpec(
        "paper, section 4.1; published code, hard search",
        "only the K newest behaviours of the target's category, in both heads; position counts twice in the score",
        score=lambda parts: ScaledDotProduct(position_twice=True),
        search=lambda parts: SameCategory(parts.top_k, parts.retrieve_padding),
        cost=Cost("0 (an index by category)", lambda size, length: 0),
        published={"model_name": "twin", "soft_search": False},
    ),
    "TWIN (w/ proj.)": ModelSpec(
        "paper, section 2.3, as the published command runs it",
        "a bias-free linear map for each field and role",
        maps=maps_of(by_role, *FIELDS),
        cost=PER_FIELD,
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
        search=lambda parts: ClusterAttention(parts.top_k, parts.counts.history),
        cost=Cost("3 K_A M, M clusters of at most 20", lambda size, length: 3 * size / min(20, length)),
    ),
    "TWIN-4E": ModelSpec(
        "paper, section 3.4",
        "four sets of tables: target / behaviour x attention / representation",
        four_tables,
        published={"model_name": "four_embedding"},
    ),
    "three tables": ModelSpec(
        "published code",
        "three sets of tables: attention of target, attention of behaviours, representation",
        three_tables,
        published={"model_name": "three_embedding"},
    ),
    "DARE (w/o TR)": ModelSpec(
        "paper, section 4.4",
        "two sets of tables; head on [target, history] without their product",
        decoupled_tables,
        form="concatenation",
        published={"model_name": "DARE", "use_cross_feature": False},
    ),
    "DARE (product)": ModelSpec(
        "paper, figure 10c",
        "two sets of tables; head on the product of target and history alone",
        decoupled_tables,
        form="product",
        published={"model_name": "DARE", "only_odot": True},
    ),
    "projection (after concatenation)": ModelSpec(
        PROJECTION,
        "four linear maps with bias on the concatenated fields, one a role",
        maps=joined_maps(by_role),
        cost=JOINED,
        published={"model_name": "projection", "mlp_position_after_concat": True},
    ),
    "projection (two linear)": ModelSpec(
        PROJECTION,
        "two linear maps with bias on the concatenated fields: attention, representation",
        maps=joined_maps(by_module),
        cost=JOINED,
        published={"model_name": "projection_two_linear", "mlp_position_after_concat": True},
    ),
    "projection (MLP with one hidden layer)": ModelSpec(
        PROJECTION,
        f"an MLP (d -> {HIDDEN} -> d) for each field, for attention and for representation",
        maps=maps_of(by_module, *FIELDS, layer=multilayer(HIDDEN)),
        cost=Cost(
            f"3 K_A N, and 3 · 2 · {HIDDEN} K_A N for the maps",
            lambda size, length: 3 * size + 6 * HIDDEN * size,
        ),
        published={"model_name": "projection_with_mlp", "mlp_hidden_layer": [HIDDEN]},
    ),
    "projection (MLP with two hidden layers)": ModelSpec(
        PROJECTION,
        f"an MLP (d -> {HIDDEN} -> {HIDDEN} -> d) for each field, for attention and for representation",
        maps=maps_of(by_module, *FIELDS, layer=multilayer(HIDDEN, HIDDEN)),
        cost=Cost(
            f"3 K_A N, and 3 ({HIDDEN}² + 2 · {HIDDEN} K_A) N for the maps",
            lambda size, length: 3 * size + 3 * (HIDDEN**2 + 2 * HIDDEN * size),
        ),
        published={"model_name": "projection_with_mlp", "mlp_hidden_layer": [HIDDEN, HIDDEN]},
    ),
    "projection (no item)": ModelSpec(
        PROJECTION,
        "bias-free linear maps on category and position, for attention and for representation",
        maps=maps_of(by_module, "category", "position"),
        cost=Cost("3 K_A N, and 2 K_A² N for the maps", lambda size, length: 3 * size + 2 * size**2),
        published={"model_name": "projection_no_item"},
    ),
    "projection (only position)": ModelSpec(
        PROJECTION,
        "bias-free linear maps on the position alone, for attention and for representation",
        maps=maps_of(by_module, "position"),
        cost=ONE_FIELD,
        published={"model_name": "projection_only_time"},
    ),
    "projection (only category)": ModelSpec(
        PROJECTION,
        "bias-free linear maps on the category alone, for attention and for representation",
        maps=maps_of(by_module, "category"),
        cost=ONE_FIELD,
        published={"model_name": "projection_only_category"},
    ),
    "projection (only item)": ModelSpec(
        PROJECTION,
        "bias-free linear maps on the item alone, for attention and for representation",
        maps=maps_of(by_module, "item"),
        cost=ONE_FIELD,
        published={"model_name": "projection_only_item"},
    ),
    "large embedding with small output": ModelSpec(
        f"{PROJECTION}, whose score splits the fields elsewhere",
        "tables twice as wide, and bias-free maps a field down to the size, for attention and for representation",
        maps=lambda parts: FieldMaps(parts.tables, by_module, FIELDS, linear_to(parts.size)),
        table_factor=2,
        cost=Cost("3 K_A N, and 6 K_A² N for the maps", lambda size, length: 3 * size + 6 * size**2),
    ),
    "equalised gradients": ModelSpec(
        PROJECTION,
        "the attention gradient on each table is rescaled to the norm of the representation gradient",
        equalised=True,
    ),
}
