"""Parameters of every chapter. Nothing here needs PyTorch before the parameters are accepted: a wrong one is refused
at once."""

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, ValidationError, field_validator, model_validator

from dare_core.config import OFFICIAL, SampleConfig, explain
from dare_core.data.worlds import NULL_WORLDS, WORLDS, AnyWorld, world_config
from dare_core.errors import InputError
from dare_core.report.settings import ChapterConfig

if TYPE_CHECKING:
    from dare_core.data.logs import Log
    from dare_core.evaluation.relevance import GainRule

MOST_SAMPLES = 120_000
"""Training samples of a log of one's own, unless all users are asked for."""
NOT_SEARCHING = "SDIM"
"""The model that retrieves nothing: it averages hash buckets."""
GRADIENT_SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "published": {"official": ("initialise_all",), "batch_size": 2_048},
    "own start": {"batch_size": 2_048},
    "recipe": {},
}
"""How models start, and samples per step, where gradients are recorded. `published`: every parameter but biases starts
at N(0, 0.01); the claims are judged here. `own start`: BatchNorm scales and PReLU slopes start at their layers' own
values. `recipe`: as all other chapters train."""

CONTROL, TOGETHER = "another_draw", "together"
SWITCHES = (CONTROL, *OFFICIAL, TOGETHER)
"""What is switched on alone in the chapter on the published code: other initial weights and order on the same samples,
which is how far nothing moves; each difference; and all of them at once."""
PUBLISHED_SETTINGS: Mapping[str, Mapping[str, Any]] = {"recipe": {}, "published": {"batch_size": 2_048}}
"""Samples per step there: by the recipe, and as published."""


def numbers(text: str) -> list[int]:
    """The numbers of a text that `Numbers` has accepted, sorted and each once; none of an empty text."""
    return sorted({int(part) for part in text.split(",") if part})


def _each(text: str, right: Callable[[str], bool], expected: str) -> str:
    """A text of parts separated by commas, each kept once. Raises ValueError where one is not right."""
    parts = [part.strip() for part in text.split(",")]
    if not all(map(right, parts)):
        raise ValueError(f"expects {expected}, separated by commas")
    return ",".join(dict.fromkeys(parts))


def _numbers(least: int = 1, most: int = 100_000, otherwise: str | None = None) -> AfterValidator:
    """Whole numbers in a range, separated by commas; or the one other text that is allowed."""

    def right(part: str) -> bool:
        return part.isdecimal() and least <= int(part) <= most

    expected = f"whole numbers from {least} to {most:,}"
    return AfterValidator(lambda text: text if text == otherwise else _each(text, right, expected))


Numbers = Annotated[str, _numbers()]
Sizes = Annotated[str, _numbers(most=1_024, otherwise="")]
"""Embedding sizes, or none."""


class StudyConfig(ChapterConfig):
    """Parameters of every study of click logs. Names in `logs` and `models` are separated by commas."""

    logs: str = Field("generated", description="generated, independent, no_decay, no_semantics or prepared logs")
    size: int = Field(16, ge=1, le=1_024, description="embedding size a field")
    seeds: int = Field(3, ge=1, le=100, description="trainings per model; on a generated log each has its own world")
    epochs: int = Field(2, ge=1, le=100)
    top_k: int = Field(20, ge=1)
    history: int = Field(200, ge=1, le=100_000, description="behaviours before the target")
    targets: int = Field(19, ge=1, le=1_000, description="training targets a user")
    spacing: int = Field(5, ge=1, le=1_000)
    shortest_user: int = Field(210, ge=4)
    negatives: int = Field(2, ge=1, le=50)
    negative_rule: Literal["auto", "unclicked", "any"] = Field(
        "auto", description="auto: any on the null worlds, unclicked elsewhere"
    )
    learning_rate: float = Field(0.01, gt=0, le=1)
    batch_size: int = Field(0, ge=0, le=1_000_000, description="samples per step; 0: by the recipe (chapter Method)")
    initial_scale: float = Field(0.01, gt=0, le=10, description="standard deviation of initial weights")
    world_users: int = Field(200, ge=20, le=1_000_000, description="users of a generated world")
    world_items: int = Field(60_000, ge=100, le=100_000_000, description="items of a generated world")
    world_categories: int = Field(2_900, ge=2, le=1_000_000, description="categories of a generated world")
    world_seed: int = Field(1, ge=0, description="seed of the first generated world; each training seed has its own")
    world: str = Field("", description="further settings of generated worlds as JSON (dare_core/data/worlds.py)")
    official_compat: bool = Field(False, description="compute as the published code does, defects included")

    @field_validator("logs", "models", check_fields=False)
    @classmethod
    def _names(cls, value: str) -> str:
        return _each(value, bool, "names")

    @field_validator("batch_size")
    @classmethod
    def _more_than_one(cls, value: int) -> int:
        if value == 1:
            raise ValueError("expects 2 or more samples per step, or 0 for the recipe")
        return value

    @classmethod
    def checked(cls, values: Mapping[str, Any]) -> Self:
        """Validate values, models' names and their fitness for the study too."""
        config = super().checked(values)
        if config.model_names:
            from dare_core.models.zoo import model_spec

            for name in config.model_names:
                model_spec(name)
        if fault := config.fault_of_models():
            raise InputError(f"models: {fault}")
        try:
            for name in config.log_names if config.world else ():
                if name in WORLDS:
                    config.world_settings(name)
        except ValidationError as error:
            raise explain(error, "world") from error
        except ValueError as error:
            raise InputError(f"world: it is not JSON ({error}).") from error
        return config

    def world_settings(self, name: str, seed: int = 1) -> AnyWorld:
        """The generated world of a name for a training seed, which moves the world too."""
        sizes = {"users": self.world_users, "items": self.world_items, "categories": self.world_categories}
        sizes["items"] = max(sizes["items"], sizes["categories"])
        further = json.loads(self.world) if self.world else {}
        return world_config({**sizes, **WORLDS[name], **further, "world_seed": self.world_seed + seed - 1})

    @property
    def log_names(self) -> list[str]:
        """The logs asked for."""
        return self.logs.split(",")

    @property
    def model_names(self) -> list[str]:
        """The models asked for, `all` of those that the study can train; none where it trains none."""
        asked: str = getattr(self, "models", "")
        return self.every_model() if asked == "all" else [name for name in asked.split(",") if name]

    def every_model(self) -> list[str]:
        """The models that `all` stands for: the whole table of models."""
        from dare_core.models.zoo import MODELS

        return list(MODELS)

    def fault_of_models(self) -> str:
        """Why the study cannot be made of the models asked for; empty where it can."""
        return ""

    @property
    def seed_numbers(self) -> range:
        """The seeds of the trainings of a model."""
        return range(1, self.seeds + 1)

    def samples_for(self, log: "Log") -> SampleConfig:
        """How samples are cut from a log."""
        rule = self.negative_rule
        if rule == "auto":
            null_world = log.card.kind == "generated log" and log.card.created_with.get("kind") in NULL_WORLDS
            rule = "any" if null_world else "unclicked"
        return SampleConfig(**self.model_dump(include={*SampleConfig.model_fields}) | {"negative_rule": rule})


class GainSettings(StudyConfig):
    """Settings of the scores that retrieve, and of the mutual information that judges them."""

    with_items: bool = Field(False, description="keep the item embeddings in the scores, which the paper leaves out")
    least_samples: int = Field(200, ge=1, description="training samples of a judged target category (published: 700)")
    least_cell: int = Field(10, ge=0, description="training samples of a cell that is not thin (published: 50)")
    most_thin: int = Field(100_000, ge=0, description="thin behaviours of a judged history (published: 20)")
    published_ndcg: bool = Field(False, description="ideal at top_k for every k; thin cells as the published code has")

    def every_model(self) -> list[str]:
        """Every model of the table that searches."""
        return [name for name in super().every_model() if name != NOT_SEARCHING]

    def fault_of_models(self) -> str:
        """A model that retrieves no behaviours."""
        searching = NOT_SEARCHING not in self.model_names
        return "" if searching else f"{NOT_SEARCHING} retrieves no behaviours; try DARE,TWIN."

    @property
    def rule(self) -> "GainRule":
        """Which cells are trusted."""
        from dare_core.evaluation.relevance import GainRule

        return GainRule(self.least_samples, self.least_cell, self.most_thin, self.published_ndcg)


class TheModelConfig(ChapterConfig):
    """Parameters of the chapter The model, which trains a DARE of its own on a small generated log."""

    users: int = Field(100, ge=20, le=10_000, description="users of the generated log")
    items: int = Field(5_000, ge=300, le=1_000_000, description="items of the generated log, in 300 categories")
    history: int = Field(100, ge=1, le=200, description="behaviours before the target, N")
    size: int = Field(16, ge=2, le=256, description="embedding dimension per field, K_R")
    top_k: int = Field(20, ge=1, description="behaviours that the search retrieves, K")
    seeds: int = Field(1, ge=1, le=20, description="trainings per model")
    epochs: int = Field(2, ge=1, le=100)
    learning_rate: float = Field(0.01, gt=0, le=1)
    batch_size: int = Field(32, ge=2, description="histories per step, each with three candidates")


class MethodConfig(StudyConfig):
    search: bool = Field(False, description="train DARE and TWIN at every learning rate and number of steps")
    rates: str = Field("0.003,0.01,0.03", description="learning rates of the search")
    steps: Numbers = Field("1000,2000,4000", description="steps per epoch of the search")
    few_and_many: bool = Field(False, description="with the search, D1 at each model's own best setting too")
    identical: int = Field(0, ge=0, le=50, description="TWINs that differ in initial weights and order alone")

    @field_validator("rates")
    @classmethod
    def _rates(cls, value: str) -> str:
        return _each(value, lambda part: 0 < float(part) <= 1, "learning rates above 0")


class DataConfig(StudyConfig):
    categories: int = Field(10, ge=2, le=200, description="most frequent target categories of the heat map")
    positions: int = Field(50, ge=5, le=1_000, description="positions of the heat map")


class GradientsConfig(StudyConfig):
    models: str = Field("TWIN", description="models with shared tables")
    settings: str = Field("published,own start", description="published (judged), own start, recipe")

    @field_validator("settings")
    @classmethod
    def _known(cls, value: str) -> str:
        return _each(value, GRADIENT_SETTINGS.__contains__, f"some of {', '.join(GRADIENT_SETTINGS)}")

    def fault_of_models(self) -> str:
        """A model without shared tables."""
        from dare_core.models.zoo import model_spec

        apart = [name for name in self.model_names if len(set(model_spec(name).assignment.values())) > 1]
        return f"{apart[0]} shares no table between attention and representation; try TWIN." if apart else ""


class ProjectionsConfig(StudyConfig):
    size: int = Field(16, ge=1, le=512, description="embedding size a field")
    models: str = Field("DARE,TWIN,TWIN (w/ proj.)", description="models to train, or all; these three always")
    wide: bool = Field(True, description="train TWIN with tables twice as wide too")
    follow_maps: bool = Field(True, description="follow how the maps move while they are trained")
    search: bool = Field(False, description="search every model's best setting; otherwise take the stored search's")

    def every_model(self) -> list[str]:
        """DARE, TWIN and every variant."""
        from dare_core.models.zoo import MODELS

        return ["DARE", "TWIN", *(name for name, spec in MODELS.items() if spec.maps is not None or spec.equalised)]

    def fault_of_models(self) -> str:
        """A model that the chapter compares with, and that is not asked for."""
        missing = [name for name in ("DARE", "TWIN", "TWIN (w/ proj.)") if name not in self.model_names]
        return f"this chapter compares with {', '.join(missing)}: add it, or leave models out." if missing else ""


class LanguageConfig(ChapterConfig):
    """Parameters of the chapter on projection capacity in language."""

    text: str = Field("plays", description="plays, tiny_shakespeare, or the path of a UTF-8 file")
    sizes: Annotated[str, _numbers(least=2)] = Field("32,8", description="embedding sizes, separated by commas")
    seeds: int = Field(2, ge=1, le=100, description="number of seeds, counted from 1")
    iterations: int = Field(150, ge=10, le=1_000_000, description="iterations at most; fewer where the loss is flat")
    layers: int = Field(2, ge=1, le=48)
    heads: int = Field(1, ge=1, le=64, description="attention heads at every size")
    block: int = Field(64, ge=1, le=1_024, description="characters of context")
    batch: int = Field(12, ge=1, le=4_096, description="windows per iteration")
    learning_rate: float = Field(0.003, gt=0, le=1)
    nanogpt: Literal["none", "cpu"] = Field(
        "none", description="cpu: also train nanoGPT's own setting for a CPU on tiny_shakespeare"
    )

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        for size in numbers(self.sizes):
            if size % self.heads:
                raise ValueError(f"size {size} is not a multiple of heads {self.heads}")
        return self


class OverallConfig(StudyConfig):
    models: str = Field("DARE,TWIN,DIN", description="models to train, or all")
    further_sizes: Sizes = Field("", description="further embedding sizes of DARE and TWIN; O2 needs 16 and 128")


class AttentionConfig(GainSettings):
    models: str = Field("DARE,TWIN,DIN,TWIN-4E", description="models to train, or all that search")
    categories: int = Field(10, ge=2, le=200, description="most frequent target categories of the heat maps")
    positions: int = Field(10, ge=2, le=1_000, description="newest positions of the heat maps")
    control_worlds: int = Field(0, ge=0, le=50, description="worlds of each control; 0: the stored table is shown")
    control_users: int = Field(700, ge=20, description="users of a control's world")
    cases: int = Field(3, ge=1, le=20, description="cases where two models disagree most, and as many at random")


class DiscriminabilityConfig(StudyConfig):
    models: str = Field("DARE,TWIN,DIN,TWIN (w/o TR),DARE (w/o TR)", description="models to train, or all")
    clusters: Annotated[str, _numbers(least=2, otherwise="all")] = Field(
        "2,10,50", description="numbers of clusters, or all of the published analysis"
    )
    cluster_seeds: int = Field(3, ge=1, le=100, description="K-means runs per model, seed and number of clusters")
    control_seeds: int = Field(1, ge=0, le=100, description="independent worlds of the control; 0: no control")

    @property
    def numbers(self) -> tuple[int, ...]:
        """The numbers of clusters asked for."""
        from dare_core.evaluation.discriminability import CLUSTERS

        return CLUSTERS if self.clusters == "all" else tuple(int(n) for n in self.clusters.split(","))


class ConvergenceConfig(StudyConfig):
    models: str = Field("DARE,TWIN,DIN", description="models to train; C1 needs DARE and TWIN")
    validations: int = Field(10, ge=1, le=1_000, description="validations per epoch: the resolution of C1")


class PublishedCodeConfig(StudyConfig):
    models: str = Field("DARE,TWIN", description="models to train; these two always")
    settings: str = Field("recipe,published", description="samples per step: recipe, published (2,048)")
    switches: str = Field(
        "no_evaluation_mode,single_samples",
        description="differences that are switched on alone, or all (dare_core/config.py)",
    )
    conflict: bool = Field(True, description="record TWIN's gradients, for the two ways to count a conflict")
    seeds: int = Field(2, ge=1, le=100, description="trainings per model; on a generated log each has its own world")
    world_users: int = Field(40, ge=20, le=1_000_000, description="users of a generated world")

    @field_validator("settings")
    @classmethod
    def _known_settings(cls, value: str) -> str:
        return _each(value, PUBLISHED_SETTINGS.__contains__, f"some of {', '.join(PUBLISHED_SETTINGS)}")

    @field_validator("switches")
    @classmethod
    def _known_switches(cls, value: str) -> str:
        known = f"all, or some of {', '.join(SWITCHES)}"
        return value if value == "all" else _each(value, SWITCHES.__contains__, known)

    @property
    def switched(self) -> list[str]:
        """The differences of training that are switched on alone."""
        return [name for name in SWITCHES if self.switches == "all" or name in self.switches.split(",")]

    def fault_of_models(self) -> str:
        """A model that the chapter compares, and that is not asked for."""
        missing = [name for name in ("DARE", "TWIN") if name not in self.model_names]
        return f"this chapter compares {', '.join(missing)}: add it, or leave models out." if missing else ""


class SearchEfficiencyConfig(StudyConfig):
    parts: Numbers = Field("1,2,4", description="what the searched embedding is divided by, 1 always; E1 needs 2 and 4")
    further_sizes: Sizes = Field("", description="further embedding sizes, shown beside `size` and not judged")
    search_length: int = Field(10_000, ge=10, le=1_000_000, description="behaviours of a timed search")
    search_rounds: int = Field(31, ge=5, le=10_000, description="rounds of timed searches")

    def attention_sizes(self, size: int) -> dict[int, int]:
        """K_A of each part of a size. Raises InputError for a part that does not divide it."""
        parts = sorted({1, *numbers(self.parts)})
        for part in parts:
            if size % part:
                raise InputError(f"parts: an embedding of size {size} cannot be divided by {part}: leave it out.")
        return {part: size // part for part in parts}

    @property
    def sizes(self) -> list[int]:
        """Every whole size, the judged one first."""
        return [self.size, *(size for size in numbers(self.further_sizes) if size != self.size)]


class RetrievalNumberConfig(GainSettings):
    models: str = Field("DARE,TWIN", description="models to train; the claims need DARE and TWIN")
    retrieved: Numbers = Field("5,20,100", description="numbers of retrieved behaviours, K; N is history")
    lengths: Numbers = Field("20,200", description="lengths of history, N; K is top_k")


class YourOwnLogConfig(StudyConfig):
    """Parameters of Your own log: the file, what it holds, and what is done with it; 0 is chosen from the log."""

    logs: str = Field("auto", description="name of the log; auto: the file's name and a hash")
    path: str = Field(
        "", description="file, folder or JSON list of files; without one the prepared log, or Complete Journey"
    )
    user: str = Field("user", description="column with the user")
    item: str = Field("item", description="column with the item")
    category: str = Field("", description="column with the item's category; none when empty")
    time: str = Field("", description="column with the time or order; file order when empty")
    behaviour: str = Field("", description="column with the behaviour; none when empty")
    keep: str = Field("", description="behaviours to keep, separated by commas; all when empty")
    clicked: str = Field("", description="column that says whether what was shown was clicked; none when empty")
    group: str = Field("", description="column with the item's group, for example its city; negatives are drawn in it")
    reading: str = Field("", description="further options of the reader, as JSON: see dare data prepare --help")
    since: str = Field("", description="first time that is kept")
    until: str = Field("", description="first time that is no longer kept")
    split: Literal["user", "time"] = Field(
        "user", description="user: each user's last click is tested; time: the last tenth"
    )
    negative_counts: Literal["log", "training"] = Field("log", description="clicks that negatives follow")
    all_users: bool = Field(False, description="train on all users, not on 120,000 samples at most")
    show_ids: bool = Field(False, description="show ids of users in the report")
    seed: int = Field(1, ge=1, le=1_000_000, description="the first seed")
    command: str = Field("", description="command that the report gives for doing it again")
    on_bad_rows: Literal["refuse", "skip"] = Field("refuse", description="refuse or skip")
    history: int = Field(0, ge=0, le=100_000, description="behaviours before the target; 0: chosen")
    targets: int = Field(0, ge=0, le=1_000, description="training targets a user; 0: chosen")
    shortest_user: int = Field(0, ge=0, description="users with fewer clicks are left out; 0: chosen")
    top_k: int = Field(0, ge=0, description="behaviours that search retrieves; 0: chosen")
    world_users: int = Field(200, ge=0, description="without a file, users of a generated one; 0: Complete Journey")

    @property
    def seed_numbers(self) -> range:
        """The seeds of the trainings of a model."""
        return range(self.seed, self.seed + self.seeds)

    def samples_for(self, log: "Log") -> SampleConfig:
        """How samples are cut from a log."""
        changes: dict[str, Any] = {
            "negatives_within": bool(self.group),
            "most_samples": 0 if self.all_users else MOST_SAMPLES,
        }
        if self.clicked:
            changes["negative_rule"] = "shown"
        return super().samples_for(log).model_copy(update=changes)


class TurningConfig(ChapterConfig):
    """Parameters of Where the verdicts turn: blocks of `book/protocol.yml` that are computed."""

    blocks: str = Field("T", description="blocks of book/protocol.yml that are computed, or none")
    seeds: int = Field(9, ge=1, le=100, description="seeds of a cell at most, where the protocol has more")
    levels: str = Field("", description="levels that the computed cells have; all cells where there are none")

    @field_validator("blocks", "levels")
    @classmethod
    def _names(cls, value: str) -> str:
        return _each(value, bool, "names") if value else value

    @property
    def level_names(self) -> list[str]:
        """The levels asked for."""
        return self.levels.split(",") if self.levels else []

    @property
    def block_names(self) -> list[str]:
        """The blocks asked for."""
        return self.blocks.split(",") if self.blocks else []


class WhichLogsConfig(StudyConfig):
    """Parameters of Which logs pay: logs whose lead is predicted before any training, each seed with other negatives;
    and blocks that are computed, with as many seeds of a cell at most."""

    blocks: str = Field("", description="W, R or both: blocks of book/protocol.yml that are computed")

    @property
    def block_names(self) -> list[str]:
        """The blocks asked for."""
        return self.blocks.split(",") if self.blocks else []


CONFIGS: dict[str, type[ChapterConfig]] = {
    "landing": ChapterConfig,
    "model": TheModelConfig,
    "method": MethodConfig,
    "data": DataConfig,
    "gradients": GradientsConfig,
    "projections": ProjectionsConfig,
    "language": LanguageConfig,
    "overall": OverallConfig,
    "attention": AttentionConfig,
    "discriminability": DiscriminabilityConfig,
    "convergence": ConvergenceConfig,
    "turning": TurningConfig,
    "which_logs": WhichLogsConfig,
    "search_efficiency": SearchEfficiencyConfig,
    "retrieval_number": RetrievalNumberConfig,
    "published_code": PublishedCodeConfig,
    "your_own_log": YourOwnLogConfig,
    "reproducibility": ChapterConfig,
}
"""The configuration of every chapter by its name, in reading order; a new chapter is a notebook, a line here, and a
module where it needs statistics of its own."""
