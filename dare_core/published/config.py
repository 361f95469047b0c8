"""The authors' published constructor arguments: checked, and made for rows of our table of models."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from dare_core.config import ModelConfig, Strict, explain
from dare_core.errors import InputError
from dare_core.models.click_model import DARE_TABLES, THREE_TABLES, TWIN_4E_TABLES
from dare_core.models.embeddings import FIELDS, Counts
from dare_core.models.zoo import model_spec

TIME_ROWS = 2_000
"""Rows of the published position table."""
SMALL_OUTPUT = 16
"""Width per field after the maps of `projection_large_emb_small_output`."""
ASSIGNMENTS = {"DARE": DARE_TABLES, "three_embedding": THREE_TABLES, "four_embedding": TWIN_4E_TABLES}
"""Tables of the models that do not share one set; an attention size of its own is for these alone."""
MAPPED = {
    "projection_no_item": ("category", "position"),
    "projection_only_time": ("position",),
    "projection_only_category": ("category",),
    "projection_only_item": ("item",),
}
"""Fields with a bias-free map of attention and one of representation."""
FIELD_NAMES = {"item": "item", "category": "category", "position": "time"}
ModelName = Literal[
    "DARE",
    "twin",
    "DIN",
    "four_embedding",
    "three_embedding",
    "projection",
    "projection_two_linear",
    "projection_with_mlp",
    "projection_no_item",
    "projection_only_time",
    "projection_only_category",
    "projection_only_item",
    "projection_large_emb_small_output",
]


class OfficialConfig(Strict):
    """The published constructor's arguments, with its defaults; -1 stands for "not given" there."""

    model_name: ModelName
    item_n: int = Field(ge=2)
    cate_n: int = Field(ge=2)
    category_embedding_dim: int = Field(16, ge=1)
    item_embedding_dim: int = -1
    time_embedding_dim: int = Field(16, ge=1)
    attention_category_embedding_dim: int = -1
    attention_item_embedding_dim: int = -1
    attention_time_embedding_dim: int = -1
    batch_size: int = Field(2_048, ge=2, description="1 would leave BatchNorm out, which is not served")
    max_length: int = Field(200, ge=1, lt=TIME_ROWS)
    use_cross_feature: bool = False
    only_odot: bool = False
    attn_func: Literal["learnable", "scaled_dot_product"] = "learnable"
    use_aux_loss: bool = False
    use_time: bool = True
    use_time_mode: Literal["concat"] = "concat"
    short_seq_split: None = None
    long_seq_split: str = Field(pattern=r"^0:[0-9]+$")
    use_long_seq_average: bool = True
    mlp_position_after_concat: bool = False
    mlp_hidden_layer: tuple[int, ...] | None = None
    soft_search: bool = False
    top_k: int = Field(10, ge=1)

    @model_validator(mode="after")
    def check(self) -> "OfficialConfig":
        """What the published constructor asserts, and what is not served."""
        learned = self.attn_func == "learnable"
        if learned != (self.model_name == "DIN") or (learned and self.use_time):
            raise ValueError("DIN has a learnable attn_func and no use_time, the other models scaled_dot_product")
        if self.only_odot and not self.use_cross_feature:
            raise ValueError("only_odot needs use_cross_feature")
        if self.attention_given and self.model_name not in ASSIGNMENTS:
            raise ValueError(f"attention sizes of their own are for {', '.join(ASSIGNMENTS)}")
        if self.model_name == "projection_with_mlp" and len(self.mlp_hidden_layer or ()) not in (1, 2):
            raise ValueError("projection_with_mlp needs mlp_hidden_layer, a list of one or two widths")
        joined = self.model_name == "projection_two_linear"
        never_joined = self.model_name == "projection_with_mlp" or self.model_name in MAPPED or self.shrinks
        if (joined and not self.mlp_position_after_concat) or (never_joined and self.mlp_position_after_concat):
            raise ValueError(f"mlp_position_after_concat must be {joined} for {self.model_name}")
        if int(self.long_seq_split.partition(":")[2]) < self.max_length:
            raise ValueError("long_seq_split must take the whole history, 0:max_length")
        return self

    @property
    def attention_given(self) -> bool:
        """Whether attention has a size of its own."""
        return any(size != -1 for size in self.attention_values.values())

    @property
    def attention_values(self) -> dict[str, int]:
        """Attention sizes by field, as given."""
        return {field: getattr(self, f"attention_{name}_embedding_dim") for field, name in FIELD_NAMES.items()}

    @property
    def shrinks(self) -> bool:
        """Whether the maps end in `SMALL_OUTPUT` numbers per field."""
        return self.model_name == "projection_large_emb_small_output"

    @property
    def all_sizes(self) -> dict[str, int]:
        """Representation sizes of all three fields, whether the model uses position or not."""
        item = self.category_embedding_dim if self.item_embedding_dim == -1 else self.item_embedding_dim
        return {"item": item, "category": self.category_embedding_dim, "position": self.time_embedding_dim}

    @property
    def all_attention_sizes(self) -> dict[str, int]:
        """Attention sizes of all three fields."""
        given = self.attention_values
        return {field: size if given[field] == -1 else given[field] for field, size in self.all_sizes.items()}

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields in use."""
        return FIELDS if self.use_time else FIELDS[:2]


def official_config(values: Mapping[str, Any]) -> OfficialConfig:
    """Check the published constructor's arguments. Raises InputError in one sentence."""
    try:
        return OfficialConfig.model_validate(values)
    except ValidationError as error:
        raise explain(error, "published configuration") from error


def published_arguments(config: ModelConfig, counts: Counts, auxiliary_loss: bool = True) -> dict[str, Any]:
    """The published constructor's arguments for a row of the table of models.

    Raises InputError for models that the published code does not have.
    """
    published = model_spec(config.name).published
    if published is None:
        raise InputError(f"The authors' published code has no counterpart of {config.name}.")
    values: dict[str, Any] = {
        "item_n": counts.items + 1,
        "cate_n": counts.categories + 1,
        "batch_size": 2_048,
        "max_length": counts.history,
        "use_cross_feature": True,
        "attn_func": "scaled_dot_product",
        "use_aux_loss": auxiliary_loss,
        "use_time": True,
        "use_time_mode": "concat",
        "long_seq_split": f"0:{counts.history}",
        "soft_search": True,
        "top_k": config.top_k,
        "use_long_seq_average": False,
        "mlp_position_after_concat": False,
    }
    for name in FIELD_NAMES.values():
        values[f"{name}_embedding_dim"] = config.size
        if config.attention_size not in (None, config.size):
            values[f"attention_{name}_embedding_dim"] = config.attention_size
    return values | dict(published)
