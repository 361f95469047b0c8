"""The two stages of a trained model as exported programs (`torch.export`), which run without this package."""

import copy
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from dare_core.data.samples import Batch, Side
from dare_core.models.embeddings import concatenated


class Serving(NamedTuple):
    """Exported programs of a model's two stages; call ``stage.module()(...)``.

    search : attention rows of targets (B, D) and of behaviours (B, N, D), their fields side by side (item, category,
        position: see `attention_rows`), and a mask (B, N), true for real behaviours -> indices (B, K) of the behaviours
        retrieved, newest first. B is any number and N any number from K on, up to the model's history where the rows
        hold positions. Where fewer than K behaviours are real, the other indices are those of padding.
    scorer : ids of targets (B,) and their categories (B,), of the retrieved items (B, K), their categories (B, K) and
        positions (B, K), 1 being the newest behaviour -> click probability (B,). Item 0 is padding and has no weight.
    """

    search: ExportedProgram
    scorer: ExportedProgram


@dataclass(frozen=True)
class RetrievedBatch(Batch):
    """Behaviours that a search has retrieved, in any order, with their positions in the history."""

    history_positions: Tensor  # (H, K)

    @property
    def positions(self) -> dict[Side, Tensor]:  # type: ignore[override]
        """(1,) the target's and (H, K) the behaviours'."""
        return {"target": torch.zeros_like(self.history_positions[0, :1]), "behaviour": self.history_positions}


class SearchStage(nn.Module):
    """From attention rows to the behaviours retrieved: the model's score and search."""

    def __init__(self, model: Any, sizes: dict[str, int]) -> None:
        super().__init__()
        self.score, self.search, self.sizes = model.score, model.search, sizes

    def forward(self, target: Tensor, behaviours: Tensor, mask: Tensor) -> Tensor:
        """Rows (B, D) and (B, N, D), mask (B, N) -> indices (B, K)."""
        q, k = (
            dict(zip(self.sizes, rows.split(list(self.sizes.values()), -1), strict=True))
            for rows in (target.unsqueeze(1), behaviours)
        )
        retrieved = self.search.retrieved(self.score(q, k), mask.unsqueeze(1))[:, 0]  # (B, N)
        columns = torch.arange(retrieved.shape[-1], device=retrieved.device)
        return torch.where(retrieved, columns, -1 - columns).topk(self.search.top_k, -1).indices


class Scorer(nn.Module):
    """From the retrieved behaviours to the probability of a click: the model on a history of K behaviours."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, target_items: Tensor, target_categories: Tensor, items: Tensor, categories: Tensor, positions: Tensor
    ) -> Tensor:
        """Ids (B,), (B,), (B, K), (B, K) and positions (B, K) -> probabilities (B,)."""
        targets = target_items.unsqueeze(1), target_categories.unsqueeze(1)
        return self.model.compute(RetrievedBatch(*targets, items, categories, positions)).probability[:, 0]  # type: ignore[no-any-return]


@torch.no_grad()
def attention_rows(model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """Attention rows of targets (H, C, D) and of behaviours (H, N, D), as `Serving.search` takes them."""
    used = model.embeddings(batch).used
    return concatenated(used["attention", "target"]), concatenated(used["attention", "behaviour"])


@torch.no_grad()
def export(model: Any) -> Serving:
    """Export a model that retrieves the K highest scores; the programs hold a copy of its weights.

    Raises ValueError for models with another search.
    """
    if not getattr(model.search, "by_score_alone", False):
        raise ValueError("Only models that retrieve the K highest scores can be exported.")
    model = copy.deepcopy(model).eval()
    device = next(model.parameters()).device
    top_k, histories = model.search.top_k, 3
    ids = torch.ones(histories, top_k + 1, dtype=torch.long, device=device)
    batch = Batch(ids[:, :1], ids[:, :1], ids[:, :top_k], ids[:, :top_k])
    sizes = {field: rows.shape[-1] for field, rows in model.embeddings(batch).used["attention", "target"].items()}
    target, behaviours = attention_rows(model, batch)
    rows = target[:, 0], torch.cat([behaviours, behaviours[:, :1]], 1), ids.bool()
    b, n = Dim("B"), Dim("N", min=top_k)
    search = torch.export.export(SearchStage(model, sizes), rows, dynamic_shapes=({0: b}, {0: b, 1: n}, {0: b, 1: n}))
    retrieved = tuple(part.clone() for part in (ids[:, 0], ids[:, 0], *(ids[:, :top_k],) * 3))  # one tensor per input
    scorer = torch.export.export(Scorer(model), retrieved, dynamic_shapes=({0: b},) * 5)
    return Serving(search, scorer)
