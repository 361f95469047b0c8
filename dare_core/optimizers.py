"""One step of Adam on all of a model, however its tables are stepped."""

import torch

from dare_core.click_model import ClickModel
from dare_core.config import TrainingConfig
from dare_core.embeddings import Batch
from dare_core.row_adam import RowAdam


def make_optimizer(model: ClickModel, config: TrainingConfig, tables: bool = True) -> torch.optim.Optimizer:
    """Dense Adam; the published penalty l2 * ||w||^2 on non-embedding weights is a weight decay of 2 * l2."""
    groups = [{"params": model.dense_parameters(), "weight_decay": 2 * config.l2}]
    if tables:
        groups.insert(0, {"params": model.embedding_parameters(), "weight_decay": 0.0})
    return torch.optim.Adam(groups, lr=config.learning_rate, fused=True)


class Steps:
    """Adam's steps: `prepare`, forward, backward, `step`; `catch_up` before a weight is read by anything else.

    On a CPU a step touches only the rows of the tables that its batch reads (`RowAdam`), in time and memory
    traffic a small part of the dense step, and the result is dense Adam's. A GPU's memory is fast enough for
    the dense step.
    """

    def __init__(self, model: ClickModel, config: TrainingConfig, steps: int, row_wise: bool) -> None:
        self.rows = RowAdam(model.table_sets(), config.learning_rate, steps) if row_wise else None
        self.dense = make_optimizer(model, config, tables=not row_wise)

    def prepare(self, batch: Batch) -> None:
        """Before the forward pass."""
        self.dense.zero_grad(set_to_none=True)
        if self.rows is not None:
            self.rows.prepare(batch)

    def step(self) -> None:
        """After the backward pass."""
        self.dense.step()
        if self.rows is not None:
            self.rows.step()

    def catch_up(self) -> None:
        """Make every weight what it is by now."""
        if self.rows is not None:
            self.rows.catch_up()
