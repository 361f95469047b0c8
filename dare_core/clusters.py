"""Attention over clusters of a user's behaviours: TWIN-V2."""

import math

import torch
from torch import Tensor, nn

from dare_core.embeddings import Batch, Rows
from dare_core.search import Found, Score, attend


@torch.no_grad()
def hierarchical_clusters(vectors: Tensor, valid: Tensor, largest: int, levels: int, iterations: int = 3) -> Tensor:
    """Cut each history into clusters by repeated halving; returns cluster numbers (H, N) below 2^levels.

    At each level every cluster of more than `largest` behaviours is cut in two at its mean, across its
    principal axis (divisive partitioning, Boley 1998: a vectorised stand-in for 2-means), found by some
    power iterations. Equal vectors stay together. `vectors` (H, N, D); padding is in no cluster and moves
    none, whatever its number.
    """
    histories, length, _ = vectors.shape
    member = torch.zeros(histories, length, dtype=torch.long, device=vectors.device)
    weight = valid.to(vectors.dtype)
    order = torch.arange(length, device=vectors.device, dtype=vectors.dtype)
    # What is closer to the mean than rounding can tell is not cut: the cut would be arbitrary.
    noise = 1e-5 * (vectors.abs() * weight.unsqueeze(-1)).amax((1, 2)).unsqueeze(1)
    for level in range(levels):
        one_hot = nn.functional.one_hot(member, 2**level).to(vectors.dtype) * weight.unsqueeze(-1)  # (H, N, M)
        size = one_hot.sum(1)  # (H, M)

        def own(values: Tensor, member: Tensor = member) -> Tensor:
            """(H, M, D) of clusters -> (H, N, D) of their members."""
            return values.gather(1, member.unsqueeze(-1).expand(-1, -1, values.shape[-1]))

        def total(values: Tensor, one_hot: Tensor = one_hot) -> Tensor:
            """(H, N, D) of behaviours -> (H, M, D) sums of clusters."""
            return one_hot.transpose(1, 2) @ values

        share = 1 / size.clamp(min=1).unsqueeze(-1)
        centred = vectors - own(total(vectors) * share)
        when = order.expand(histories, -1).unsqueeze(-1)
        side = when - own(total(when) * share)  # starts from the drift over time: no random direction needed
        for _ in range(iterations):
            axis = nn.functional.normalize(total(centred * side), dim=-1)
            side = (centred * own(axis)).sum(-1, keepdim=True)
        cut = (side.squeeze(-1) > noise) & own(size.unsqueeze(-1)).squeeze(-1).gt(largest)
        member = 2 * member + cut
    return member


class ClusterAttention(nn.Module):
    """TWIN-V2: attention over hierarchical clusters, score plus log of the cluster's size (Si et al. 2024).

    A cluster's vector is the mean of its members', so its score is their mean score, and its weight, spread
    evenly over its members, is the softmax over behaviours of that mean: the log of the size comes in by
    itself. The K clusters of highest score + log size are retrieved. Clusters are made anew at every forward
    pass from the detached item and category attention embeddings, until none has more than `largest`
    members (20, as published) or `levels` halvings are done; the published first cut by playing time has
    no counterpart here.
    """

    def __init__(self, top_k: int, history: int, largest: int = 20, more_levels: int = 2) -> None:
        super().__init__()
        self.top_k = top_k
        self.largest = largest
        self.levels = max(0, math.ceil(math.log2(history / largest))) + more_levels

    def forward(self, score: Score, target: Rows, behaviour: Rows, batch: Batch) -> Found:
        content = torch.cat([behaviour["item"], behaviour["category"]], -1).detach()
        member = hierarchical_clusters(content, batch.valid, self.largest, self.levels)
        one_hot = nn.functional.one_hot(member, 2**self.levels) * batch.valid.unsqueeze(-1)
        size = one_hot.sum(1).unsqueeze(1)  # (H, 1, M)
        scores = score(target, behaviour)
        one_hot = one_hot.to(scores.dtype)
        mean = (scores * batch.valid.unsqueeze(1)) @ one_hot / size.clamp(min=1)  # (H, C, M)
        ranking = (mean.detach() + size.clamp(min=1).log()).masked_fill(size == 0, -math.inf)
        clusters = ranking.topk(min(self.top_k, ranking.shape[-1]), -1).indices
        taken = torch.zeros_like(ranking, dtype=torch.bool).scatter(-1, clusters, True)
        columns = member.unsqueeze(1).expand_as(scores)
        valid = batch.valid.unsqueeze(1).expand_as(scores)
        of_cluster = mean.gather(-1, columns)
        return Found(of_cluster, attend(of_cluster, taken.gather(-1, columns) & valid), valid)
