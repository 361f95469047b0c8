"""Attention over clusters of a user's behaviours: TWIN-V2."""

import math

import torch
from torch import Tensor, nn

from dare_core.data.samples import Batch
from dare_core.models.embeddings import Rows
from dare_core.models.search import Found, Score, attend


def members(cluster: Tensor, clusters: int, valid: Tensor) -> Tensor:
    """(H, N, M) true where a behaviour is in a cluster; padding is in none."""
    return (cluster.unsqueeze(-1) == torch.arange(clusters, device=cluster.device)) & valid.unsqueeze(-1)


@torch.no_grad()
def hierarchical_clusters(vectors: Tensor, valid: Tensor, largest: int, levels: int, iterations: int = 2) -> Tensor:
    """Cut each history into clusters by repeated halving; returns cluster numbers (H, N) below 2^levels.

    At each level every cluster of more than `largest` behaviours is cut in two at its mean, across its
    principal axis (divisive partitioning, Boley 1998: a vectorised stand-in for 2-means), found by some
    power iterations. Equal vectors stay together. `vectors` (H, N, D); padding moves no cluster.
    """
    histories, length, _ = vectors.shape
    cluster = torch.zeros(histories, length, dtype=torch.long, device=vectors.device)
    order = torch.arange(length, device=vectors.device, dtype=vectors.dtype).expand(histories, -1)
    # What is closer to the mean than rounding can tell is not cut: the cut would be arbitrary.
    noise = 1e-5 * (vectors.abs().amax(-1) * valid).amax(1, keepdim=True)
    for level in range(levels):
        inside = members(cluster, 2**level, valid).to(vectors.dtype)
        size = inside.sum(1)

        def centred(values: Tensor, inside: Tensor = inside, size: Tensor = size, own: Tensor = cluster) -> Tensor:
            """Numbers (H, N) less the mean of their cluster."""
            mean = (values.unsqueeze(1) @ inside).squeeze(1) / size.clamp(min=1)
            return values - mean.gather(1, own)

        side = centred(order)  # starts from the drift over time: no random direction is needed
        for _ in range(iterations):
            axis = nn.functional.normalize((inside * side.unsqueeze(-1)).transpose(1, 2) @ vectors, dim=-1)
            along = vectors @ axis.transpose(1, 2)  # (H, N, M)
            side = centred(along.gather(2, cluster.unsqueeze(-1)).squeeze(-1))
        cut = (side > noise) & (size.gather(1, cluster) > largest)
        cluster = 2 * cluster + cut
    return cluster


class ClusterAttention(nn.Module):
    """TWIN-V2: attention over hierarchical clusters, score plus log of the cluster's size (Si et al. 2024).

    A cluster's vector is the mean of its members', so its score is their mean score, and its weight, spread
    evenly over its members, is the softmax over behaviours of that mean: the log of the size comes in by
    itself. The K clusters of highest score + log size are retrieved. Clusters are made anew at every forward
    pass from the detached item and category attention embeddings, until none has more than `largest`
    members (20, as published) or `levels` halvings are done; the published first cut by playing time has
    no counterpart here.
    """

    def __init__(self, top_k: int, history: int, largest: int = 20, more_levels: int = 1) -> None:
        super().__init__()
        self.top_k = top_k
        self.largest = largest
        self.levels = max(0, math.ceil(math.log2(history / largest))) + more_levels

    def forward(self, score: Score, target: Rows, behaviour: Rows, batch: Batch) -> Found:
        content = torch.cat([behaviour["item"], behaviour["category"]], -1).detach()
        cluster = hierarchical_clusters(content, batch.valid, self.largest, self.levels)
        inside = members(cluster, 2**self.levels, batch.valid)
        size = inside.sum(1).unsqueeze(1)  # (H, 1, M)
        scores = score(target, behaviour)
        mean = scores @ inside.to(scores.dtype) / size.clamp(min=1)  # (H, C, M)
        ranking = (mean.detach() + size.clamp(min=1).log()).masked_fill(size == 0, -math.inf)
        clusters = ranking.topk(min(self.top_k, ranking.shape[-1]), -1).indices
        taken = torch.zeros_like(ranking, dtype=torch.bool).scatter(-1, clusters, True)
        columns = cluster.unsqueeze(1).expand_as(scores)
        valid = batch.valid.unsqueeze(1).expand_as(scores)
        of_cluster = mean.gather(-1, columns)
        keep = taken.gather(-1, columns) & valid
        return Found(of_cluster, attend(of_cluster, keep), keep, valid)
