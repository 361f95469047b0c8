"""Adam on a model: dense for most parameters, row by row for large embedding tables."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from dare_core.config import TrainingConfig
from dare_core.data.samples import Batch
from dare_core.models.click_model import ClickModel
from dare_core.training.row_adam import BETAS, EPSILON, RowAdam

FEWEST_ROWS = 4_096
"""Rows of a table below which the dense step takes less time than to look for those that a batch reads."""


class DenseAdam:
    """Adam on whole parameters, in groups with a weight decay each: PyTorch's own kernel without its bookkeeping,
    which takes several times as long. A parameter gets a gradient at every step, or at none."""

    def __init__(self, groups: Iterable[tuple[list[nn.Parameter], float]], learning_rate: float) -> None:
        self.groups: list[tuple[list[Tensor], float]] = [(list(own), decay) for own, decay in groups if own]
        self.learning_rate = learning_rate
        every = [parameter for parameters, _ in self.groups for parameter in parameters]
        self.moments = {p: (torch.zeros_like(p), torch.zeros_like(p)) for p in every}
        self.steps = torch.zeros((), device=every[0].device if every else None)

    @torch.no_grad()
    def step(self) -> None:
        """Step what has a gradient."""
        self.steps += 1
        for parameters, decay in self.groups:
            trained = [parameter for parameter in parameters if parameter.grad is not None]
            torch._fused_adam_(
                trained,
                [parameter.grad for parameter in trained if parameter.grad is not None],
                [self.moments[parameter][0] for parameter in trained],
                [self.moments[parameter][1] for parameter in trained],
                [],
                [self.steps] * len(trained),
                lr=self.learning_rate,
                beta1=BETAS[0],
                beta2=BETAS[1],
                weight_decay=decay,
                eps=EPSILON,
                amsgrad=False,
                maximize=False,
            )


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
        self.dense = DenseAdam([(dense, 0.0), (model.dense_parameters(), 2 * config.l2)], config.learning_rate)

    def prepare(self, batch: Batch) -> None:
        """Before the forward pass."""
        for parameter in self.dense.moments:
            parameter.grad = None
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
