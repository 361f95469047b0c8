"""TWIN, DARE, TWIN-4E and their ablations on one page, from top to bottom as data flows.

The three models differ in one thing: which set of embedding tables serves which role (`TWIN_TABLES`, `DARE_TABLES`,
`TWIN_4E_TABLES`). An ablation changes what the head is given (`Form`). Every other model of the study replaces one
part of this page (`zoo`). Numbers in brackets after a line are sections of the paper, whose equations stand there.

| letter | meaning |
|---|---|
| H, B | histories in a batch; B where each has one target |
| C | candidate targets per history, the clicked one first |
| N | behaviours per history, newest last |
| K | behaviours that the search retrieves |
| d | embedding dimension per field (item, category, position): K_A for attention, K_R for representation |
"""

import math
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from dare_core.data.samples import Batch
from dare_core.models.embeddings import FIELDS, ROLES, Counts, EmbeddingScheme, Role, Rows, concatenated
from dare_core.models.interface import Interface
from dare_core.models.kernels.fused import can_fuse, pool_in_one_pass
from dare_core.models.results import TINY, Output, PooledHistory, SearchResult, full_precision

# ---------------------------------------------------------------------------- tables: which set serves which role

TWIN_TABLES: dict[Role, str] = dict.fromkeys(ROLES, "shared")  # e_i and v_t are the same everywhere (2.1)
DARE_TABLES: dict[Role, str] = {role: role[0] for role in ROLES}  # E^Att and E^Repr (3.1, 3.2)
TWIN_4E_TABLES: dict[Role, str] = {role: "_".join(role) for role in ROLES}  # E^Att-h, E^Att-t, E^Repr-h, ... (3.4)
THREE_TABLES = DARE_TABLES | {role: "_".join(role) for role in ROLES[:2]}  # E^Att-h, E^Att-t, E^Repr (published code)


# ------------------------------------------------------------------------------------------------ attention score


def content_scores(q: Rows, k: Rows) -> Tensor:
    """(<q_item, k_item> + <q_category, k_category>) / sqrt(2 d), of targets q with behaviours k."""
    content_q = torch.cat([q["item"], q["category"]], -1)  # (H, C, 2 d)
    content_k = torch.cat([k["item"], k["category"]], -1)  # (H, N, 2 d)
    return content_q @ content_k.mT / math.sqrt(content_q.shape[-1])  # (H, C, N)


def position_scores(q: Rows, k: Rows) -> Tensor:
    """<q_position, k_position> / sqrt(d); every target has position 0, the newest behaviour position 1."""
    return q["position"] @ k["position"].mT / math.sqrt(q["position"].shape[-1])  # (1, N), for the whole batch


class ScaledDotProduct(nn.Module):
    """Score of TWIN and DARE: <e_i, v_t> / sqrt(d) (2.1, 3.1), where the published code scales content and position
    apart and the paper's text has one sqrt(d)."""

    def forward(self, q: Rows, k: Rows) -> Tensor:
        """Scores (H, C, N)."""
        return content_scores(q, k) + position_scores(q, k)


# --------------------------------------------------------------------------------- search: the K highest scores

PADDING_SCORE = -(2.0**32) + 1
"""Score of what takes no part in a softmax, as in the published code."""


def top_k_mask(scores: Tensor, valid: Tensor, k: int) -> Tensor:
    """(H, C, N) true for the K highest valid scores, of equal ones the newest; padding is never retrieved (2.1)."""
    ranking = scores.detach().masked_fill(~valid, -math.inf)  # (H, C, N)
    best = ranking.topk(min(k, ranking.shape[-1]), -1, sorted=False).values  # (H, C, K)
    lowest = best.amin(-1, keepdim=True)  # (H, C, 1), the K-th highest score
    above, equal = ranking > lowest, ranking == lowest  # (H, C, N)
    room = k - above.sum(-1, keepdim=True)  # (H, C, 1), for how many of those equal to the K-th
    newest = equal.flip(-1).cumsum(-1).flip(-1) <= room  # (H, C, N)
    return (above | (equal & newest)) & valid


def masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """w_i: softmax of the scores (H, C, N) over the mask (3.1); 0 elsewhere, and where the mask is empty."""
    return torch.softmax(scores.masked_fill(~mask, PADDING_SCORE), -1) * mask


class TopK(nn.Module):
    """Search stage of TWIN and DARE: the K behaviours of highest attention score (2.1, 3.1)."""

    by_score_alone: ClassVar[bool] = True  # so that it can be exported as a stage of its own

    def __init__(self, top_k: int) -> None:
        super().__init__()
        self.top_k = top_k

    def retrieved(self, scores: Tensor, valid: Tensor) -> Tensor:
        """(H, C, N) true for the retrieved behaviours; `valid` (H, 1, N) is false at padding."""
        return top_k_mask(scores, valid, self.top_k)

    def forward(self, scores: Tensor, q: Rows, k: Rows, batch: Batch) -> SearchResult:
        valid = batch.valid.unsqueeze(1)  # (H, 1, N)
        retrieved = self.retrieved(scores, valid)  # (H, C, N)
        return SearchResult(scores, masked_softmax(scores, retrieved), retrieved, valid.expand_as(scores))


# ------------------------------------------------------------------------------------------------- heads and loss

Form = Literal["target_aware", "concatenation", "product"]
"""What a head is given of target v and pooled history h: [v, h, v * h] (TR, 3.2), [v, h] (w/o TR) or [v * h]."""
WIDTHS: dict[Form, int] = {"target_aware": 3, "concatenation": 2, "product": 1}


def join(form: Form, v: Tensor, h: Tensor) -> Tensor:
    """Features of a head from v and h (H, C, 3 d). As v_t is the same for every behaviour, v * h is the paper's
    target-aware representation: v_t ⊙ sum_i w_i e_i = sum_i w_i (e_i ⊙ v_t) (3.2)."""
    parts = {"target_aware": [v, h, v * h], "concatenation": [v, h], "product": [v * h]}
    return torch.cat(parts[form], -1)  # (H, C, 9 d), (H, C, 6 d) or (H, C, 3 d)


class Head(nn.Sequential):
    """BatchNorm, then linear layers with PReLU between them; the last gives two logits: click, no click."""

    def __init__(self, *widths: int) -> None:
        layers: list[nn.Module] = [nn.BatchNorm1d(widths[0])]
        for width_in, width_out in zip(widths, widths[1:], strict=False):
            layers += [nn.Linear(width_in, width_out), nn.PReLU()]
        super().__init__(*layers, nn.Linear(widths[-1], 2))

    def forward(self, features: Tensor) -> Tensor:
        """Logits (H, C, 2) of features (H, C, F)."""
        return super().forward(features.flatten(0, 1)).unflatten(0, features.shape[:2])


def cross_entropy(logits: Tensor, clicked: Tensor | None = None) -> Tensor:
    """Mean of -log(probability of what happened + 1e-8); logits (H, C, 2). The first candidate is clicked, or those
    where `clicked` (H, C) is true."""
    log_probability = (torch.softmax(full_precision(logits), -1) + TINY).log()  # (H, C, 2)
    if clicked is not None:
        return -torch.where(clicked, log_probability[..., 0], log_probability[..., 1]).mean()
    return -torch.cat([log_probability[:, :1, 0], log_probability[:, 1:, 1]], 1).mean()


# ----------------------------------------------------------------------------------------------------- the model


class ClickModel(Interface):
    """Search the K most relevant behaviours, pool them, predict the click (paper, figures 1 and 6).

    Parameters
    ----------
    embeddings : EmbeddingScheme
        Tables of the four roles (attention and representation of target and behaviour).
    score : nn.Module
        Attention scores (H, C, N) from the attention rows of targets and behaviours.
    search : nn.Module
        A `SearchResult` from the scores, the same rows and the batch.
    form : {"target_aware", "concatenation", "product"}
        Features of the heads.
    width : int
        Width of a representation: d summed over the fields.
    auxiliary : bool
        Whether there is a second head, trained on the history pooled without a search (published code).
    auxiliary_width : int
        Width of its representation where the search brings rows of its own; 0 for `width`.
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
    ) -> None:
        super().__init__()
        self.embeddings = embeddings
        self.score = score
        self.search = search
        self.form: Form = form
        self.main_head = Head(WIDTHS[form] * width, 200, 80)
        self.auxiliary_head = Head(WIDTHS[form] * (auxiliary_width or width), 200) if auxiliary else None

    def pool(self, batch: Batch) -> PooledHistory:
        """From ids to the pooled history: embeddings, scores, search, weighted sum."""
        vectors = self.embeddings(batch)  # by role and field: (H, C, d) of targets, (H, N, d) of behaviours
        q, k = vectors.used["attention", "target"], vectors.used["attention", "behaviour"]
        v = concatenated(vectors.used["representation", "target"])  # v_t^Repr (H, C, 3 d)
        e = concatenated(vectors.used["representation", "behaviour"])  # e_i^Repr (H, N, 3 d)

        scores = self.score(q, k)  # <e_i^Att, v_t^Att> / sqrt(d) (H, C, N)
        found = self.search(scores, q, k, batch)  # Top-K and the weights w_i of the retrieved (H, C, N)

        weights = [found.weights]
        if self.training and self.auxiliary_head is not None and found.auxiliary is None:
            own = found.auxiliary_weights  # the auxiliary head pools without a search (H, C, N)
            weights.append(masked_softmax(found.scores, found.considered) if own is None else own)
        h, *whole = (torch.cat(weights, 1) @ e).split(v.shape[1], 1)  # sum_i w_i e_i^Repr (H, C, 3 d) each (2.1, 3.2)
        return PooledHistory(v, h, (v, *whole) if whole else found.auxiliary, found, vectors)

    def features(self, v: Tensor, h: Tensor) -> Tensor:
        """Input of a head, (H, C, F)."""
        return join(self.form, v, h)

    def compute(self, batch: Batch) -> Output:
        """All that the model computes for a batch."""
        pooled = (
            pool_in_one_pass(self.embeddings, batch, self.search.top_k)  # type: ignore[arg-type]
            if self.in_one_pass()
            else self.pool(batch)
        )
        features = self.features(pooled.v, pooled.h)  # (H, C, 9 d)
        logits = self.main_head(features)  # (H, C, 2)
        auxiliary_logits = None
        if self.training and self.auxiliary_head is not None and pooled.auxiliary is not None:
            auxiliary_logits = self.auxiliary_head(join(self.form, *pooled.auxiliary))  # (H, C, 2)
        found = pooled.search
        attention = found.scores, found.weights, found.retrieved, found.considered
        return Output(logits, auxiliary_logits, *attention, features, pooled.vectors)

    def losses(self, output: Output, clicked: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Main and auxiliary cross-entropy, of which training minimises the sum; without a second head the latter is 0.
        `clicked` (H, C) where it is not the first candidate alone.

        (Training also adds `l2` times the squared norm of all weights but embeddings, as weight decay.)
        """
        main = cross_entropy(output.logits, clicked)
        if output.auxiliary_logits is None:
            return main, torch.zeros_like(main)
        return main, cross_entropy(output.auxiliary_logits, clicked)

    def in_one_pass(self) -> bool:
        """Whether `pool` can be one compiled node of the graph: in training on a CPU, with a scaled dot product, the K
        highest scores and both heads. It computes the same (`tests/test_fused.py`)."""
        return (
            self.training
            and self.auxiliary_head is not None
            and type(self.score) is ScaledDotProduct
            and type(self.search) is TopK
            and can_fuse(self.embeddings)
        )


# ------------------------------------------------------------------------------- the paper's models, ready to use


class DARE(ClickModel):
    """DARE: one set of embedding tables for attention, another for representation (paper, section 3).

    An ordinary `nn.Module` on tensors of ids: see `forward` for the call, `loss` for the published training loss, and
    `forward_with_auxiliary` for loops with labels of their own. Weights start at N(0, 0.01) as published, drawn from
    PyTorch's global random generator.

    Parameters
    ----------
    items, categories : int
        Number of ids, which run from 1; 0 is padding.
    history : int
        Most behaviours per history, N.
    size : int
        Embedding dimension per field (item, category, position) of the representation, K_R.
    attention_size : int, optional
        The same for attention, K_A: the cost of the search is proportional to it. As `size` where left out.
    top_k : int
        Behaviours that the search retrieves, K.
    form : {"target_aware", "concatenation", "product"}
        Features of the heads; "concatenation" is the ablation DARE (w/o TR).

    Examples
    --------
    >>> import torch
    >>> _ = torch.manual_seed(0)
    >>> model = DARE(items=100, categories=10, history=8, size=4, attention_size=2, top_k=3)
    >>> targets, target_categories = torch.tensor([[7, 31], [64, 5]]), torch.tensor([[1, 4], [9, 2]])
    >>> history, categories = torch.randint(1, 101, (2, 8)), torch.randint(1, 11, (2, 8))
    >>> model(targets, target_categories, history, categories).shape  # click logits, two candidates per history
    torch.Size([2, 2])
    >>> loss = model.loss(targets, target_categories, history, categories)  # the first candidates were clicked
    >>> loss.backward()
    >>> model.eval()(targets[:, 0], target_categories[:, 0], history, categories).sigmoid().shape
    torch.Size([2])
    """

    tables: ClassVar[Mapping[Role, str]] = DARE_TABLES

    def __init__(
        self,
        items: int,
        categories: int,
        history: int = 200,
        size: int = 16,
        attention_size: int | None = None,
        top_k: int = 20,
        form: Form = "target_aware",
    ) -> None:
        sizes = {
            name: dict.fromkeys(FIELDS, attention_size or size if role[0] == "attention" else size)
            for role, name in self.tables.items()
        }
        embeddings = EmbeddingScheme(self.tables, sizes, Counts(items, categories, history))
        super().__init__(embeddings, ScaledDotProduct(), TopK(top_k), form, len(FIELDS) * size)
        self.initialise(int(torch.randint(2**31, (), device="cpu")))


class TWIN(DARE):
    """TWIN: one set of embedding tables for everything, here with target-aware representation (paper, section 4.1).

    Parameters are those of `DARE` but for `attention_size`; `form="concatenation"` is TWIN (w/o TR).

    Examples
    --------
    >>> import torch
    >>> model = TWIN(items=100, categories=10, history=8, size=4, top_k=3)
    >>> target, history = torch.tensor([7, 64]), torch.randint(1, 101, (2, 8))
    >>> clicked = torch.tensor([1.0, 0.0])
    >>> main, auxiliary = model.forward_with_auxiliary(target, target % 10 + 1, history, history % 10 + 1)
    >>> cross_entropy = torch.nn.functional.binary_cross_entropy_with_logits
    >>> loss = cross_entropy(main, clicked) + cross_entropy(auxiliary, clicked)
    """

    tables = TWIN_TABLES

    def __init__(
        self,
        items: int,
        categories: int,
        history: int = 200,
        size: int = 16,
        top_k: int = 20,
        form: Form = "target_aware",
    ) -> None:
        super().__init__(items, categories, history, size, None, top_k, form)


class TWIN4E(DARE):
    """TWIN-4E: a set of embedding tables for each of the four roles (paper, section 3.4); parameters of `DARE`."""

    tables = TWIN_4E_TABLES
