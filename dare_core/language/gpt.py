"""A small character-level GPT, with or without the query, key and value maps (paper, section 2.3 and Fig. 5).

The architecture is GPT-2's in the small form that nanoGPT made common: learned positions, layer norm before
each part, no biases, the head tied to the character embeddings. What a chapter compares is `kind`:

- `with`: attention works on linear maps of the layer-normed input, as usual;
- `without`: attention works on the layer-normed input itself, which is query, key and value at once;
- `without, wider MLP`: the same, with the parameters of the absent maps given to the MLP's hidden layer.
"""

import math
from typing import Literal, get_args

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from dare_core.config import Strict

Kind = Literal["with", "without", "without, wider MLP"]
KINDS: tuple[Kind, ...] = get_args(Kind)
MLP_WIDTH = 4
"""Hidden units of the MLP over the embedding size."""
INITIAL_SCALE = 0.02
"""Standard deviation of initial weights (GPT-2)."""


class LanguageModelConfig(Strict):
    """Architecture of a character-level GPT."""

    kind: Kind = Field("with", description="with query, key and value maps, without, or without and a wider MLP")
    size: int = Field(128, ge=2, le=4_096, description="embedding size")
    layers: int = Field(2, ge=1, le=48)
    heads: int = Field(1, ge=1, le=64, description="attention heads; the size must be a multiple")
    block: int = Field(64, ge=1, le=4_096, description="characters of context")

    @model_validator(mode="after")
    def _heads_divide(self) -> "LanguageModelConfig":
        if self.size % self.heads:
            raise ValueError(f"size {self.size} is not a multiple of heads {self.heads}")
        return self

    @property
    def hidden(self) -> int:
        """Hidden units of a layer's MLP: two matrices of size x hidden hold what three maps would (3 size^2)."""
        extra = round(3 * self.size / 2) if self.kind == "without, wider MLP" else 0
        return MLP_WIDTH * self.size + extra


class Attention(nn.Module):
    """Causal self-attention; without maps, the input is query, key and value."""

    def __init__(self, config: LanguageModelConfig) -> None:
        super().__init__()
        size = config.size
        self.heads = config.heads
        self.maps = nn.Linear(size, 3 * size, bias=False) if config.kind == "with" else None
        self.output = nn.Linear(size, size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, size) to (B, T, size); position t sees positions up to t."""
        parts = self.maps(x).chunk(3, -1) if self.maps is not None else (x, x, x)
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.output(mixed.transpose(1, 2).flatten(2))


class Layer(nn.Module):
    """Attention, then an MLP, each added to its layer-normed input's stream."""

    def __init__(self, config: LanguageModelConfig) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.size, bias=False)
        self.attention = Attention(config)
        self.mlp_norm = nn.LayerNorm(config.size, bias=False)
        self.rise = nn.Linear(config.size, config.hidden, bias=False)
        self.output = nn.Linear(config.hidden, config.size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, size) to (B, T, size)."""
        x = x + self.attention(self.attention_norm(x))
        return x + self.output(functional.gelu(self.rise(self.mlp_norm(x))))


class LanguageModel(nn.Module):
    """Characters (B, T) to logits of the next character (B, T, V)."""

    def __init__(self, config: LanguageModelConfig, vocabulary: int, seed: int) -> None:
        super().__init__()
        self.config = config
        self.characters = nn.Embedding(vocabulary, config.size)  # the head too
        self.positions = nn.Embedding(config.block, config.size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.size, bias=False)
        self._draw(torch.Generator().manual_seed(seed))

    @torch.no_grad()
    def _draw(self, generator: torch.Generator) -> None:
        """Initial matrices: normal, those that write to the residual stream smaller by its depth (GPT-2).

        The maps are drawn last: with one seed, the model with maps and the one without start from the same values
        everywhere else.
        """
        matrices = [(name, p) for name, p in self.named_parameters() if p.dim() == 2]
        for name, matrix in sorted(matrices, key=lambda pair: ".maps." in pair[0]):
            depth = math.sqrt(2 * self.config.layers) if ".output." in name else 1.0
            matrix.normal_(0, INITIAL_SCALE / depth, generator=generator)

    def forward(self, characters: Tensor) -> Tensor:
        """Logits (B, T, V) of characters (B, T); T is at most the block."""
        x = self.characters(characters) + self.positions.weight[: characters.shape[1]]
        for layer in self.layers:
            x = layer(x)
        return functional.linear(self.norm(x), self.characters.weight)

    def losses(self, windows: Tensor) -> Tensor:
        """Mean cross-entropy in nats per character (B,) of windows (B, T + 1): each predicts its next character."""
        logits = self(windows[:, :-1])
        following = windows[:, 1:]
        losses = functional.cross_entropy(logits.flatten(0, 1), following.flatten(), reduction="none")
        return losses.view(following.shape).mean(1)


def parameter_counts(model: LanguageModel) -> dict[str, int]:
    """Number of parameters: embeddings, maps, MLP, all."""
    named = [(name, p.numel()) for name, p in model.named_parameters()]
    return {
        "embeddings": sum(n for name, n in named if name.startswith(("characters", "positions"))),
        "query, key, value maps": sum(n for name, n in named if ".maps." in name),
        "MLP": sum(n for name, n in named if ".rise." in name or (".output." in name and ".attention." not in name)),
        "all": sum(n for _, n in named),
    }
