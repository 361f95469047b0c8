"""Adam on a model: dense for most parameters, row by row for large embedding tables."""

import torch

from dare_core.config import TrainingConfig
from dare_core.data.samples import Batch
from dare_core.models.click_model import ClickModel
from dare_core.training.row_adam import RowAdam

FEWEST_ROWS = 4_096
"""Rows of a table below which the dense step takes less time than to look for those that a batch reads."""


class Steps:
    """Adam's steps: `prepare`, forward, backward, `step`; `catch_up` before a weight is read by anything else.

    On a CPU a step touches only the rows of the larger tables that its batch reads (`RowAdam`), in time and memory
    traffic a small part of the dense step, and the result is dense Adam's. A GPU's memory is fast enough for
    the dense step. The published penalty l2 * ||w||^2 on non-embedding weights is a weight decay of 2 * l2.
    """

    def __init__(
        self, model: ClickModel, config: TrainingConfig, steps: int, row_wise: bool, fewest: int = FEWEST_ROWS
    ) -> None:
        tables = model.embedding_parameters()
        self.rows = None
        if row_wise and any(len(table) >= fewest for table in tables):
            self.rows = RowAdam(model.table_sets(), config.learning_rate, steps, fewest)
        dense = [table for table in tables if not row_wise or len(table) < fewest]
        groups = ((dense, 0.0), (model.dense_parameters(), 2 * config.l2))
        self.dense = torch.optim.Adam(
            [{"params": weights, "weight_decay": decay} for weights, decay in groups if weights],
            config.learning_rate,
            fused=True,
        )

    def prepare(self, batch: Batch) -> None:
        """Before the forward pass."""
        self.dense.zero_grad()
        if self.rows is not None:
            self.rows.prepare(batch)

    def step(self) -> None:
        """After the backward pass."""
        self.dense.step()
        if self.rows is not None:
            self.rows.step()

    def catch_up(self) -> None:
        """Apply all pending updates, so that every row equals dense Adam's."""
        if self.rows is not None:
            self.rows.catch_up()
