"""A click-through model: embeddings x score x search x head."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from dare_core.embeddings import Batch, EmbeddingScheme, Rows, Tables, Vectors
from dare_core.hashing import Hyperplanes
from dare_core.prelu import PReLU
from dare_core.search import attend

Form = Literal["target_aware", "concatenation", "product"]
"""Features of the head from target v and pooled history h: [v, h, v * h], [v, h] or [v * h]."""
MapInitial = Literal["published", "xavier", "identity"]


class Head(nn.Sequential):
    """BatchNorm, then linear layers with PReLU between them; the last gives two logits (click first)."""

    def __init__(self, *widths: int) -> None:
        layers: list[nn.Module] = [nn.BatchNorm1d(widths[0])]
        for width_in, width_out in zip(widths, widths[1:], strict=False):
            layers += [nn.Linear(width_in, width_out), PReLU()]
        super().__init__(*layers, nn.Linear(widths[-1], 2))


@dataclass(frozen=True)
class Output:
    """What a forward pass gives; shapes as in `Batch`, F features, N behaviours."""

    logits: Tensor  # (H, C, 2), click first
    auxiliary_logits: Tensor | None  # (H, C, 2), from attention over the whole history
    scores: Tensor  # (H, C, N), before softmax, padding included
    weights: Tensor  # (H, C, N), of the retrieved behaviours
    considered: Tensor  # (H, C, N) true for who takes part in attention over the whole history
    features: Tensor  # (H, C, F), input of the main head
    vectors: Vectors

    @property
    def probability(self) -> Tensor:
        """(H, C) probability of a click; 1e-8 is added as in the published code."""
        return torch.softmax(in_full(self.logits), -1)[..., 0] + 1e-8


def in_full(tensor: Tensor) -> Tensor:
    """At least float32, as probabilities need it where the model computed with bfloat16."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def cross_entropy(logits: Tensor) -> Tensor:
    """Mean cross-entropy of logits (H, C, 2) whose first candidate is clicked and whose others are not.

    As published: log(softmax + 1e-8).
    """
    log_probability = (torch.softmax(in_full(logits), -1) + 1e-8).log()
    return -(log_probability[:, :1, 0].sum() + log_probability[:, 1:, 1].sum()) / logits[..., 0].numel()


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
    histories, candidates, _ = weights[0].shape
    together = torch.cat(weights, 1)  # (H, M * C, N)
    h = torch.cat([together @ rows for rows in behaviour.values()], -1)  # (H, M * C, W)
    v = torch.cat([rows.expand(histories, candidates, -1) for rows in target.values()], -1)
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

    def forward(self, batch: Batch) -> Output:
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
        shape = found.weights.shape[:2]
        logits = self.main_head(features.flatten(0, 1)).unflatten(0, shape)
        auxiliary_logits = None
        if second_head is not None:
            if found.own is not None:
                v, pooled = pool(found.own[0], found.own[1], [whole])
            auxiliary_features = join(self.form, v, pooled[-1:])
            auxiliary_logits = second_head(auxiliary_features.flatten(0, 1)).unflatten(0, shape)
        return Output(logits, auxiliary_logits, found.scores, found.weights, found.considered, features, vectors)

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
                module.reset_parameters()
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
            elif isinstance(module, Hyperplanes):
                module.draw(generator)
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
