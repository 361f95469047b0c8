"""Gradients of attention and of representation into the embeddings (paper, section 2.2).

A table that serves both modules gets the sum of two gradients. Every role reads its rows through a node of its own
(`Vectors.rows`), and hooks on these nodes split the sum without changing it: training computes the same with and
without a recorder, up to rounding (without one it may run in one pass, `dare_core.models.kernels.fused`).
"""

from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from dare_core.data.samples import Batch
from dare_core.models.click_model import ClickModel
from dare_core.models.embeddings import ROLES, Role, Vectors
from dare_core.models.kernels.lookup import add_rows

BINS = np.linspace(-1, 1, 41)
"""Edges of the histogram of row-wise cosines."""


@dataclass(frozen=True)
class GradientRecord:
    """Statistics per field and step (F, S), over the rows of the table with a gradient of either module.

    A row's cosine exists where both its gradients are not zero.
    """

    field: np.ndarray  # (F,) names
    attention_norm: np.ndarray  # (F, S) mean norm of a row's gradient from attention
    representation_norm: np.ndarray  # (F, S) the same from representation
    mean_cosine: np.ndarray  # (F, S) mean over rows: the published statistic
    negative_share: np.ndarray  # (F, S) share of rows with a negative cosine
    table_cosine: np.ndarray  # (F, S) cosine of the two gradients of the whole table
    rows: np.ndarray  # (F, S) rows with a gradient
    cosine_histogram: np.ndarray  # (F, 40) row-wise cosines over all steps

    def of(self, name: str, field: str) -> np.ndarray:
        """One statistic (S,) of one field."""
        return getattr(self, name)[list(self.field).index(field)]


class GradientRecorder:
    """Records the gradients of a model's embeddings, separately by module: `listen` before the backward pass, `record`
    after it."""

    def __init__(self, model: ClickModel) -> None:
        model.embeddings.apart = True
        self.embeddings = model.embeddings
        self.fields = model.embeddings.fields
        self.histogram = {field: np.zeros(len(BINS) - 1) for field in self.fields}
        self.steps: list[dict[str, list[float]]] = []
        self.captured: dict[tuple[Role, str], Tensor] = {}
        self.batch: Batch | None = None

    def listen(self, vectors: Vectors, batch: Batch) -> None:
        """Register hooks that capture each role's gradient in the next backward pass."""
        self.captured = {}
        self.batch = batch
        for role, rows in vectors.rows.items():
            for field, tensor in rows.items():
                tensor.register_hook(lambda grad, key=(role, field): self.captured.__setitem__(key, grad))

    def table_gradient(self, module: str, field: str) -> Tensor:
        """(rows, d) gradient of a field's table from one module, as one table for the module would get it."""
        assert self.batch is not None and self.captured, "listen() comes before backward()"
        # A module that nothing trains, as attention by hash buckets, gets no gradient: it is zero.
        total = torch.zeros_like(self.embeddings.table(next(role for role in ROLES if role[0] == module), field))
        for (role, name), gradient in self.captured.items():
            if (role[0], name) == (module, field):
                ids = self.embeddings.tables(role).ids(self.batch, role[1])[field].reshape(-1)
                add_rows(total.numpy(), ids.numpy(), gradient.detach().reshape(len(ids), -1).contiguous().numpy())
        return total

    def record(self) -> None:
        """Aggregate the captured gradients to this step's statistics."""
        step: dict[str, list[float]] = {}
        for field in self.fields:
            attention = self.table_gradient("attention", field)
            representation = self.table_gradient("representation", field)
            norms = attention.norm(dim=1), representation.norm(dim=1)
            touched = (norms[0] > 0) | (norms[1] > 0)
            both = (norms[0] > 0) & (norms[1] > 0)
            rows = int(touched.sum())
            angles = [np.nan, np.nan, np.nan]
            if attention.shape[1] == representation.shape[1] and bool(both.any()):
                dot = (attention * representation).sum(1)
                cosines = (dot[both] / (norms[0] * norms[1])[both]).double().numpy()
                self.histogram[field] += np.histogram(cosines.clip(-1, 1), BINS)[0]
                table = float(dot.sum() / (attention.norm() * representation.norm()))
                angles = [float(cosines.mean()), float((cosines < 0).mean()), table]
            means = [float(norm[touched].mean()) if rows else 0.0 for norm in norms]
            step[field] = [*means, *angles, float(rows)]
        self.steps.append(step)

    def result(self) -> GradientRecord:
        """Everything recorded so far."""
        table = np.array([[step[field] for step in self.steps] for field in self.fields])  # (F, S, 6)
        names = [entry.name for entry in fields(GradientRecord)][1:-1]
        return GradientRecord(
            field=np.array(self.fields),
            cosine_histogram=np.stack([self.histogram[field] for field in self.fields]),
            **{name: table[:, :, i] for i, name in enumerate(names)},
        )
