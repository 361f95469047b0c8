"""Settings of the chapter on the model, which trains a DARE of its own on a small generated log and judges no claim."""

from pydantic import Field

from dare_core.report.record import ChapterConfig


class Config(ChapterConfig):
    """Parameters of the chapter The model."""

    users: int = Field(100, ge=20, le=10_000, description="users of the generated log")
    items: int = Field(5_000, ge=300, le=1_000_000, description="items of the generated log, in 300 categories")
    history: int = Field(100, ge=1, le=200, description="behaviours before the target, N")
    size: int = Field(16, ge=2, le=256, description="embedding dimension per field, K_R")
    top_k: int = Field(20, ge=1, description="behaviours that the search retrieves, K")
    seeds: int = Field(1, ge=1, le=20, description="trainings per model")
    epochs: int = Field(2, ge=1, le=100)
    learning_rate: float = Field(0.01, gt=0, le=1)
    batch_size: int = Field(32, ge=2, description="histories per step, each with three candidates")
