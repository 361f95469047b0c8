"""A click-through model: embeddings x score x search x head."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dare_core.data.samples import Batch
from dare_core.models.embeddings import EmbeddingScheme, Rows, Tables, Vectors
from dare_core.models.kernels.autograd import first_derivative_only
from dare_core.models.kernels.fused import can_fuse, fused
from dare_core.models.kernels.head import head_in_one_pass
from dare_core.models.kernels.prelu import PReLU
from dare_core.models.kernels.selection import pooled
from dare_core.models.search import ScaledDotProduct, TopK, attend

Form = Literal["target_aware", "concatenation", "product"]
"""Features of the head from target v and pooled history h: [v, h, v * h], [v, h] or [v * h]."""
MapInitial = Literal["published", "xavier", "identity"]
TINY = 1e-8
"""Added to probabilities, as in the published code."""


class Head(nn.Sequential):
    """BatchNorm, then linear layers with PReLU between them; the last gives two logits (click first)."""

    def __init__(self, *widths: int) -> None:
        layers: list[nn.Module] = [nn.BatchNorm1d(widths[0])]
        for width_in, width_out in zip(widths, widths[1:], strict=False):
            layers += [nn.Linear(width_in, width_out), PReLU()]
        super().__init__(*layers, nn.Linear(widths[-1], 2))

    def forward(self, features: Tensor) -> Tensor:
        """(H, C, 2) logits of features (H, C, F)."""
        rows = features.flatten(0, 1)
        if self.training and rows.device.type == "cpu" and not torch.is_autocast_enabled("cpu"):
            logits = head_in_one_pass(self, rows)
        else:
            logits = super().forward(rows)
        return logits.unflatten(0, features.shape[:2])


@dataclass(frozen=True)
class Output:
    """What a forward pass gives; shapes as in `Batch`, F features, N behaviours."""

    logits: Tensor  # (H, C, 2), click first
    auxiliary_logits: Tensor | None  # (H, C, 2), from attention over the whole history
    scores: Tensor  # (H, C, N), before softmax, padding included
    weights: Tensor  # (H, C, N), of the retrieved behaviours
    retrieved: Tensor  # (H, C, N) true for the retrieved behaviours
    considered: Tensor  # (H, C, N) true for who takes part in attention over the whole history
    features: Tensor  # (H, C, F), input of the main head
    vectors: Vectors

    @property
    def probability(self) -> Tensor:
        """(H, C) probability of a click; 1e-8 is added as in the published code."""
        return torch.softmax(in_full(self.logits), -1)[..., 0] + TINY


def in_full(tensor: Tensor) -> Tensor:
    """At least float32, as probabilities need it where the model computed with bfloat16."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


class _CrossEntropy(torch.autograd.Function):
    """See `cross_entropy`. The softmax over two logits is the logistic function of their difference."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor) -> Tensor:
        probability = logits[..., 1] - logits[..., 0]  # of what happened
        probability[:, 0].neg_()
        probability.sigmoid_()
        ctx.save_for_backward(probability)
        return (probability + TINY).log_().mean().neg_()

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        (probability,) = ctx.saved_tensors
        slope = probability * (probability - 1) / (probability + TINY) * (gradient / probability.numel())
        slope[:, 0].neg_()
        return torch.stack([-slope, slope], -1)


def cross_entropy(logits: Tensor) -> Tensor:
    """Mean cross-entropy of logits (H, C, 2) whose first candidate is clicked and whose others are not.

    As published: log(softmax + 1e-8).
    """
    return _CrossEntropy.apply(in_full(logits))  # type: ignore[no-any-return]


def join(form: Form, target: Tensor, histories: list[Tensor]) -> Tensor:
    """Input of a head from the target v and pooled histories h, all (H, C, W): see `Form`."""
    products = [target * h for h in histories]
    if form == "product":
        return torch.cat(products, -1)
    parts = [target, *histories]
    return torch.cat(parts + products if form == "target_aware" else parts, -1)


def joined_width(form: Form, width: int, histories: int) -> int:
    """Width of what `join` gives."""
    return width * {"target_aware": 1 + 2 * histories, "concatenation": 1 + histories, "product": histories}[form]


def pool(target: Rows, behaviour: Rows, weights: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Target v (H, C, W) and one history h (H, C, W) for each of some sets of weights (H, C, N), pooled in one
    product a field."""
    candidates = weights[0].shape[1]
    together = weights[0] if len(weights) == 1 else torch.cat(weights, 1)  # (H, M * C, N)
    v, h = pooled(together, list(target.values()), list(behaviour.values()), candidates)
    return v, list(h.split(candidates, 1))


class ClickModel(nn.Module):
    """A click-through model: embedding scheme x score x search x head (paper, figure 1).

    All parts are given; the models of the study differ in nothing else. `width` is that of the
    representation over all fields, `auxiliary_width` that of the auxiliary head's own rows where the search
    has some (0: the same). With `average` the main head also gets the mean over the whole history (an option
    of the published code).
    """

    def __init__(
        self,
        embeddings: EmbeddingScheme,
        score: nn.Module,
        search: nn.Module,
        form: Form,
        width: int,
        auxiliary: bool = True,
        auxiliary_width: int = 0,
        average: bool = False,
    ) -> None:
        super().__init__()
        self.embeddings = embeddings
        self.score = score
        self.search = search
        self.form: Form = form
        self.average = average
        self.main_head = Head(joined_width(form, width, 1 + average), 200, 80)
        self.auxiliary_head = Head(joined_width(form, auxiliary_width or width, 1), 200) if auxiliary else None

    def in_one_pass(self, batch: Batch) -> bool:
        """Whether all up to the heads can be one node of the graph (`dare_core.models.kernels.fused`): in training on
        a CPU, with both heads, a scaled dot product on rows as they are, and a search for the K best."""
        return (
            self.training
            and self.auxiliary_head is not None
            and not (self.average or self.embeddings.apart)
            and isinstance(self.score, ScaledDotProduct)
            and isinstance(self.search, TopK)
            and not self.search.retrieve_padding
            and can_fuse(self.embeddings)
            and batch.target_items.device.type == "cpu"
            and not torch.is_autocast_enabled("cpu")
        )

    def forward(self, batch: Batch) -> Output:
        if self.in_one_pass(batch):
            assert isinstance(self.score, ScaledDotProduct) and isinstance(self.search, TopK)
            assert self.auxiliary_head is not None
            v, both, scores, weights, keep = fused(self.embeddings, batch, self.score.scales, self.search.top_k)
            pooled = both.split(v.shape[1], 1)
            features, auxiliary = (join(self.form, v, [h]) for h in pooled)
            logits, auxiliary_logits = self.main_head(features), self.auxiliary_head(auxiliary)
            considered = batch.valid.unsqueeze(1).expand_as(scores)
            return Output(logits, auxiliary_logits, scores, weights, keep, considered, features, Vectors({}, {}))
        vectors = self.embeddings(batch)
        used = vectors.used
        found = self.search(self.score, used["attention", "target"], used["attention", "behaviour"], batch)
        target, behaviour = used["representation", "target"], used["representation", "behaviour"]
        sets = [found.weights]
        if self.average:  # the published mean divides by one more than there are
            taken = found.considered.to(found.weights.dtype)
            sets.append(taken / (taken.sum(-1, keepdim=True) + 1))
        second_head = self.auxiliary_head if self.training else None
        if second_head is not None:
            whole = attend(found.scores, found.considered) if found.whole is None else found.whole
            if found.own is None:
                sets.append(whole)
        v, pooled = pool(target, behaviour, sets)
        features = join(self.form, v, pooled[: 1 + self.average])
        logits = self.main_head(features)
        auxiliary_logits = None
        if second_head is not None:
            if found.own is not None:
                v, pooled = pool(found.own[0], found.own[1], [whole])
            auxiliary_logits = second_head(join(self.form, v, pooled[-1:]))
        return Output(
            logits, auxiliary_logits, found.scores, found.weights, found.retrieved, found.considered, features, vectors
        )

    def losses(self, output: Output) -> tuple[Tensor, Tensor]:
        """Main and auxiliary cross-entropy; the auxiliary one is 0 where there is no second head."""
        main = cross_entropy(output.logits)
        if output.auxiliary_logits is None:
            return main, torch.zeros_like(main)
        return main, cross_entropy(output.auxiliary_logits)

    def combine_gradients(self) -> None:
        """After backward, before the step: see `EmbeddingScheme.combine_gradients`."""
        self.embeddings.combine_gradients()

    def initialise(
        self, seed: int, scale: float, everything: bool = False, map_initial: MapInitial = "published"
    ) -> None:
        """Embeddings and linear weights ~ N(0, scale); biases, BatchNorm and PReLU keep their layers' own.

        `everything`: every parameter but biases, BatchNorm scales and PReLU slopes included, as the
        published code does. `map_initial`: projection maps like all other weights, or by Xavier's rule, or
        with ones on the diagonal (the latter two with zero biases).
        """
        generator = torch.Generator().manual_seed(seed)
        maps = set() if self.embeddings.maps is None else set(self.embeddings.maps.modules())
        for module in self.modules():
            if isinstance(module, nn.Linear):  # the layer's own rule, but from our generator
                bound = module.in_features**-0.5
                if module.bias is not None:
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
        """The sets of embedding tables, a search's own included."""
        return [module for module in self.modules() if isinstance(module, Tables)]

    def embedding_parameters(self) -> list[nn.Parameter]:
        """The embedding tables, a search's own included."""
        return [table for tables in self.table_sets() for table in tables.parameters()]

    def dense_parameters(self) -> list[nn.Parameter]:
        """Everything else: heads, learned scores, maps."""
        tables = {id(table) for table in self.embedding_parameters()}
        return [parameter for parameter in self.parameters() if id(parameter) not in tables]
