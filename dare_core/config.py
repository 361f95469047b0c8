"""Settings of samples, model and training. Frozen and strict: an unknown key or a value out of range is refused, and
equal settings have equal content hashes."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dare_core.errors import InputError

Difference = Literal[
    "retrieve_padding", "no_evaluation_mode", "drop_last", "initialise_all", "fixed_samples", "single_samples"
]

OFFICIAL: tuple[Difference, ...] = (
    "retrieve_padding",  # with fewer behaviours than top_k, padding is retrieved with its real score
    "no_evaluation_mode",  # BatchNorm normalises test batches by their own statistics
    "drop_last",  # the last partial batch of every split is left out
    "initialise_all",  # BatchNorm scales and PReLU slopes start at N(0, 0.01) too
    "fixed_samples",  # the seed moves initial weights only
    "single_samples",  # a click and its negatives are shuffled apart: a batch holds single samples, each with a history
)
"""What the published code does differently from our defaults; each can be switched on alone."""


class Strict(BaseModel):
    """Base of every configuration: immutable, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class SampleConfig(Strict):
    """Which samples are cut from a log (published protocol: paper, appendix B, and the published code)."""

    history: int = Field(200, ge=1, le=100_000, description="behaviours before the target, N")
    targets: int = Field(19, ge=1, le=1_000, description="training targets per user")
    spacing: int = Field(5, ge=1, le=1_000, description="clicks between two training targets")
    shortest_user: int = Field(210, ge=4, description="users with fewer clicks are dropped")
    negatives: int = Field(2, ge=1, le=50, description="negatives per positive sample")
    negative_rule: Literal["unclicked", "any", "shown"] = Field(
        "unclicked",
        description="unclicked: drawn, never an item the user clicks (published); any: drawn, no such rule; "
        "shown: not drawn, but what a log of impressions says was shown and not clicked",
    )
    negatives_within: bool = Field(False, description="draw negatives from the target's group of items")
    negative_counts: Literal["log", "training"] = Field(
        "log",
        description="popularity that negatives follow: clicks in the whole log (published) or in training",
    )
    split: Literal["user", "time"] = Field(
        "user",
        description="user: each user's last click is the test target (published); time: test targets lie in the "
        "last tenth of the clicks by time, validation targets in the tenth before",
    )
    most_samples: int = Field(
        0, ge=0, description="users are drawn, by a fixed seed, until training has so many samples; 0: all users"
    )


class ModelConfig(Strict):
    """Which model, and its sizes."""

    name: str = Field("DARE", description="a name in the table of models")
    size: int = Field(16, ge=1, le=1_024, description="embedding size per field, K_R")
    attention_size: int | None = Field(
        None, ge=1, le=1_024, description="attention size per field, K_A; the same as `size` when left out"
    )
    top_k: int = Field(20, ge=1, description="behaviours that search retrieves, K")


class TrainingConfig(Strict):
    """How a model is trained; the published protocol where it is sound."""

    epochs: int = Field(2, ge=1, le=100)
    batch_size: int | None = Field(
        None,
        ge=2,
        description="samples per step; a 2,000th of the training samples, at least 32, at most 2,048, when left out",
    )
    learning_rate: float = Field(0.01, gt=0, le=1)
    l2: float = Field(1e-6, ge=0, description="times the sum of squares of all non-embedding weights")
    initial_scale: float = Field(0.01, gt=0, le=10, description="standard deviation of initial weights")
    map_initial: Literal["published", "xavier", "identity"] = Field(
        "published",
        description="initial weights of projection maps: normal with `initial_scale` as all others (published), "
        "Xavier's, or ones on the diagonal",
    )
    auxiliary_loss: bool = True
    validations_per_epoch: int = Field(10, ge=1, le=1_000)
    official: tuple[Difference, ...] = Field((), description="differences of the published code switched on")
    precision: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="bfloat16: the forward pass computes in bfloat16 where PyTorch's autocast allows it",
    )
    record_gradients: bool = Field(False, description="record the gradients of attention and representation")
    repetition: int = Field(
        0, ge=0, le=1_000, description="another draw of initial weights and order on the same samples (a control)"
    )


class RunConfig(Strict):
    """One training run: everything that its result depends on, but for the log's content."""

    log: str
    samples: SampleConfig = SampleConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    seed: int = Field(1, ge=0, le=2**31 - 1)


def explain(error: ValidationError, what: str) -> InputError:
    """One sentence for what pydantic found wrong first."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"]) or what
    message = first["msg"][0].lower() + first["msg"][1:]
    got = f" (got {first['input']!r})" if first["type"] != "missing" else ""
    return InputError(f"{what}: '{where}': {message}{got}.")
