"""What every click model offers besides its computation: calls on tensors of ids, initial values, parameter groups."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dare_core.data.samples import Batch
from dare_core.models.embeddings import EmbeddingScheme, Tables
from dare_core.models.serving import Serving, export

MapInitial = Literal["published", "xavier", "identity"]
INITIAL_SCALE = 0.01
"""Standard deviation of initial weights in the published code."""


class Interface(nn.Module):
    """Base of `ClickModel`, which defines `compute` and `losses`."""

    embeddings: EmbeddingScheme
    compute: Callable[[Batch], Any]
    losses: Callable[[Any], tuple[Tensor, Tensor]]

    def forward(
        self,
        target_items: Tensor,
        target_categories: Tensor,
        history_items: Tensor,
        history_categories: Tensor,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Click logits: logit(click) - logit(no click), so that their sigmoid is the probability of a click.

        Parameters
        ----------
        target_items, target_categories : integer Tensor, shape (B,) or (B, C)
            Ids from 1; C candidates per history, or one.
        history_items, history_categories : integer Tensor, shape (B, N)
            Ids from 1, 0 is padding, newest behaviour last; N at most the model's `history`.
        mask : bool Tensor, shape (B, N), optional
            True for real behaviours; without it, item 0 is padding.

        Returns
        -------
        Tensor, shape (B,) or (B, C)
            One logit per target, usable with `binary_cross_entropy_with_logits`.
        """
        return self.forward_with_auxiliary(target_items, target_categories, history_items, history_categories, mask)[0]

    def forward_with_auxiliary(
        self,
        target_items: Tensor,
        target_categories: Tensor,
        history_items: Tensor,
        history_categories: Tensor,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Click logits of the main and of the auxiliary head, for loops that bring their own labels.

        The paper's models are trained with both: add the same loss of the auxiliary logits. Parameters and shapes are
        those of `forward`. The second is None in evaluation mode and without an auxiliary head.
        """
        batch = self.embeddings.batch(target_items, target_categories, history_items, history_categories, mask)
        output = self.compute(batch)
        main, auxiliary = (
            None if logits is None else (logits[..., 0] - logits[..., 1]).view(target_items.shape)
            for logits in (output.logits, output.auxiliary_logits)
        )
        assert main is not None
        return main, auxiliary

    def loss(
        self,
        target_items: Tensor,
        target_categories: Tensor,
        history_items: Tensor,
        history_categories: Tensor,
        mask: Tensor | None = None,
    ) -> Tensor:
        """The published training loss: cross-entropy of the main plus that of the auxiliary head (main alone in
        evaluation mode).

        Parameters are those of `forward`, with targets of shape (B, C): the first candidate of every history is the
        clicked item, the others are not clicked. Raises ValueError for targets of another shape.
        """
        if target_items.dim() != 2:
            raise ValueError("Targets need the shape (B, C), the clicked item first; see forward_with_auxiliary.")
        batch = self.embeddings.batch(target_items, target_categories, history_items, history_categories, mask)
        main, auxiliary = self.losses(self.compute(batch))
        return main + auxiliary

    def to_serving(self) -> Serving:
        """Export the search stage and the scorer as programs that run without this package (`torch.export`); `Serving`
        gives their inputs. They hold a copy of the weights. Raises ValueError for models whose search is not by the K
        highest scores.

        Examples
        --------
        >>> import torch
        >>> from dare_core import DARE
        >>> model = DARE(items=100, categories=10, history=8, size=4, attention_size=2, top_k=3)
        >>> serving = model.to_serving()
        >>> target, behaviours, mask = torch.randn(5, 6), torch.randn(5, 8, 6), torch.ones(5, 8, dtype=torch.bool)
        >>> serving.search.module()(target, behaviours, mask).shape  # columns of the history
        torch.Size([5, 3])
        """
        return export(self)

    def initialise(
        self,
        seed: int,
        scale: float = INITIAL_SCALE,
        everything: bool = False,
        map_initial: MapInitial = "published",
    ) -> None:
        """Draw embeddings and linear weights from N(0, scale); biases, BatchNorm and PReLU start as PyTorch has them.

        `seed` is that of the only random generator that is used; PyTorch's global one is left alone. `everything`
        draws the scales of BatchNorm and the slopes of PReLU too, as the published code does. `map_initial` says how
        projection maps start: as all other weights, or by Xavier's rule, or with ones on the diagonal (the latter two
        with biases of zero).
        """
        generator = torch.Generator().manual_seed(seed)
        maps = set() if self.embeddings.maps is None else set(self.embeddings.maps.modules())
        for module in self.modules():
            if isinstance(module, nn.Linear):
                if module.bias is not None:
                    bound = module.in_features**-0.5
                    nn.init.uniform_(module.bias, -bound, bound, generator=generator)
                nn.init.normal_(module.weight, 0.0, scale, generator=generator)
                if module in maps and map_initial != "published":
                    if module.bias is not None:
                        nn.init.zeros_(module.bias)
                    if map_initial == "identity":
                        nn.init.eye_(module.weight)
                    else:
                        nn.init.xavier_normal_(module.weight, generator=generator)
            elif isinstance(module, Tables):
                for table in module.tables.values():
                    nn.init.normal_(table, 0.0, scale, generator=generator)
            elif callable(draw := getattr(module, "draw", None)):
                draw(generator)
            elif everything and isinstance(module, nn.BatchNorm1d | nn.PReLU):
                nn.init.normal_(module.weight, 0.0, scale, generator=generator)

    def table_sets(self) -> list[Tables]:
        """The sets of embedding tables, those of a search unit included."""
        return [module for module in self.modules() if isinstance(module, Tables)]

    def embedding_parameters(self) -> list[nn.Parameter]:
        """The embedding tables, those of a search unit included."""
        return [table for tables in self.table_sets() for table in tables.parameters()]

    def dense_parameters(self) -> list[nn.Parameter]:
        """Everything else: heads, learned scores, maps."""
        tables = {id(table) for table in self.embedding_parameters()}
        return [parameter for parameter in self.parameters() if id(parameter) not in tables]
