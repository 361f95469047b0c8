"""Searches of the other models: hard search, SIM's own tables, hashing (ETA, SDIM), clusters (TWIN-V2).

Each takes the attention scores (H, C, N), the attention rows of targets and behaviours, and the batch, and returns a
`SearchResult`. The search of TWIN and DARE is `click_model.TopK`.
"""

import math

import torch
from torch import Tensor, nn

from dare_core.data.samples import Batch
from dare_core.models.click_model import PADDING_SCORE, TopK, content_scores, masked_softmax, top_k_mask
from dare_core.models.embeddings import Rows, Sizes, Tables, concatenated
from dare_core.models.results import SearchResult


def highest(ranking: Tensor, k: int) -> Tensor:
    """(H, C, N) true for the K highest of a ranking without ties."""
    columns = ranking.topk(min(k, ranking.shape[-1]), -1, sorted=False).indices
    return torch.zeros(ranking.shape, dtype=torch.bool, device=ranking.device).scatter_(-1, columns, True)


def same_category(batch: Batch) -> Tensor:
    """(H, C, N) true for behaviours of the candidate's category."""
    return (batch.target_categories.unsqueeze(-1) == batch.history_categories.unsqueeze(1)) & batch.valid.unsqueeze(1)


def padded_top_k_mask(scores: Tensor, valid: Tensor, k: int) -> Tensor:
    """(H, C, N) true for the K highest scores as the published code retrieves them: where a history has fewer than K
    behaviours, padding fills up, which then takes part with its real score."""
    return highest(scores.detach().masked_fill(~valid, PADDING_SCORE), k)


class PaddedTopK(TopK):
    """`TopK` that retrieves padding as the published code does; see `padded_top_k_mask`."""

    by_score_alone = False

    def retrieved(self, scores: Tensor, valid: Tensor) -> Tensor:
        """(H, C, N) true for the retrieved behaviours."""
        return padded_top_k_mask(scores, valid, self.top_k)


class SameCategory(nn.Module):
    """Hard search: the K newest behaviours of the target's category, filled up with the newest others.

    With `whole_history` the auxiliary head attends to every behaviour, as a separate search unit would leave it (SIM);
    without, only to the retrieved ones (the published code's hard search).
    """

    def __init__(self, top_k: int, retrieve_padding: bool = False, whole_history: bool = False) -> None:
        super().__init__()
        self.top_k = top_k
        self.retrieve_padding = retrieve_padding
        self.whole_history = whole_history

    def retrieved(self, batch: Batch) -> Tensor:
        """(H, C, N) true for the retrieved behaviours."""
        same = same_category(batch)
        column = torch.arange(same.shape[-1], device=same.device)  # newest last
        # Padding is left of all behaviours, so it comes last by itself, its newest columns first.
        keep = highest((column + same.shape[-1] * same).float(), self.top_k)
        return keep if self.retrieve_padding else keep & batch.valid.unsqueeze(1)

    def forward(self, scores: Tensor, q: Rows, k: Rows, batch: Batch) -> SearchResult:
        retrieved = self.retrieved(batch)
        considered = batch.valid.unsqueeze(1).expand_as(retrieved) if self.whole_history else retrieved
        return SearchResult(scores, masked_softmax(scores, retrieved), retrieved, considered)


class OwnTables(nn.Module):
    """SIM's soft search: inner product in embeddings of its own (Pi et al. 2020, section 3.1).

    The search unit has its own tables, trained by a click loss of its own: the auxiliary head, which pools *these*
    embeddings over the whole history. SIM trains that unit before or together with the other in the same way, but pools
    with the inner products themselves, where we take their softmax, as everywhere here. The modelling unit then
    attends to the retrieved behaviours with the model's score and tables.
    """

    def __init__(self, tables: Tables, top_k: int, retrieve_padding: bool = False) -> None:
        super().__init__()
        self.tables = tables
        self.top_k = top_k
        self.mask = padded_top_k_mask if retrieve_padding else top_k_mask

    def forward(self, scores: Tensor, q: Rows, k: Rows, batch: Batch) -> SearchResult:
        rows = self.tables(batch)
        own = content_scores(rows["target"], rows["behaviour"])
        retrieved = self.mask(own, batch.valid.unsqueeze(1), self.top_k)
        valid = batch.valid.unsqueeze(1).expand_as(scores)
        h = masked_softmax(own, valid) @ concatenated(rows["behaviour"])  # (H, C, 2 d)
        auxiliary = concatenated(rows["target"]), h
        return SearchResult(scores, masked_softmax(scores, retrieved), retrieved, valid, auxiliary=auxiliary)


# ------------------------------------------------------------------ locality-sensitive hashing: ETA and SDIM


class Hyperplanes(nn.Module):
    """`number` random hyperplanes through the origin of the attention vector, as one (d, number) block per field.

    A vector's bit for a hyperplane is the side on which it lies; two vectors at angle a agree on a bit with
    probability 1 - a / pi. Hyperplanes are drawn once, from the run's seed, and never trained. Fields are weighted so
    that the inner product of two hashed vectors is TWIN's score: content by (2 d)^(-1/4), position by d^(-1/4).
    """

    def __init__(self, sizes: Sizes, number: int) -> None:
        super().__init__()
        content = sizes["item"] + sizes["category"]
        self.factors = {field: (size if field == "position" else content) ** -0.25 for field, size in sizes.items()}
        for field, size in sizes.items():
            self.register_buffer(field, torch.zeros(size, number))

    def draw(self, generator: torch.Generator) -> None:
        """Draw the hyperplanes' normals from N(0, 1)."""
        for block in self.buffers():
            block.normal_(generator=generator)

    @torch.no_grad()
    def forward(self, rows: Rows) -> Tensor:
        """On which side of each plane, and how far: (H, C, number) of targets, (H, N, number) of behaviours."""
        planes, scaled = dict(self.named_buffers()), {field: rows[field] * self.factors[field] for field in rows}
        content = [field for field in rows if field != "position"]
        total = torch.cat([scaled[field] for field in content], -1) @ torch.cat([planes[field] for field in content])
        if "position" in rows:  # one product serves the whole batch
            total += scaled["position"] @ planes["position"]
        return total


class Hamming(nn.Module):
    """ETA's search: the K behaviours whose fingerprints differ from the target's in the fewest bits.

    SimHash fingerprints of the attention vectors; among equal distances the newer is taken (Chen et al. 2021,
    section 3). The retrieved behaviours are then attended to as in TWIN.
    """

    def __init__(self, sizes: Sizes, hashes: int, top_k: int, retrieve_padding: bool = False) -> None:
        super().__init__()
        self.planes = Hyperplanes(sizes, hashes)
        self.top_k = top_k
        self.retrieve_padding = retrieve_padding

    def retrieved(self, q: Rows, k: Rows, batch: Batch) -> Tensor:
        """(H, C, N) true for the retrieved behaviours."""
        of_target, of_behaviour = (self.planes(rows).sign_() for rows in (q, k))
        agreement = of_target @ of_behaviour.mT  # hashes - 2 * distance: whole numbers, exact in float32
        newer = torch.arange(agreement.shape[-1], device=agreement.device) / agreement.shape[-1]
        keep = padded_top_k_mask(agreement + newer, batch.valid.unsqueeze(1), self.top_k)
        return keep if self.retrieve_padding else keep & batch.valid.unsqueeze(1)

    def forward(self, scores: Tensor, q: Rows, k: Rows, batch: Batch) -> SearchResult:
        retrieved = self.retrieved(q, k, batch)
        valid = batch.valid.unsqueeze(1).expand_as(scores)
        return SearchResult(scores, masked_softmax(scores, retrieved), retrieved, valid)


class SignatureBuckets(nn.Module):
    """SDIM's attention: no search; behaviours in the target's hash bucket are averaged.

    `hashes` bits in groups of `width`: in each group the behaviours whose signature equals the target's are averaged,
    then the groups are (Cao et al. 2022, section 4). An empty bucket gives no weight, so a row of weights sums to the
    share of groups with a behaviour in the target's bucket. The score returned is the share of groups in which a
    behaviour collides: (1 - angle / pi)^width in expectation. Hashing has no gradient: embeddings are trained through
    the representation alone. (Cao et al. also normalise each bucket's sum; the study's definition averages.)
    """

    def __init__(self, sizes: Sizes, hashes: int, width: int) -> None:
        super().__init__()
        if hashes % width:
            raise ValueError(f"{hashes} hashes cannot be cut into groups of {width}.")
        self.planes = Hyperplanes(sizes, hashes)
        self.width = width

    def signatures(self, rows: Rows) -> Tensor:
        """Whole numbers (H, C, G) or (H, N, G): the bits of each of G groups."""
        side = self.planes(rows)
        bits = (side >= 0).unflatten(-1, (-1, self.width)).to(side.dtype)
        return bits @ 2.0 ** torch.arange(self.width, device=side.device, dtype=side.dtype)

    def forward(self, scores: Tensor, q: Rows, k: Rows, batch: Batch) -> SearchResult:
        of_target, of_behaviour = self.signatures(q), self.signatures(k)
        valid = batch.valid.unsqueeze(1)
        collide = (of_target.unsqueeze(2) == of_behaviour.unsqueeze(1)).logical_and_(valid.unsqueeze(-1))
        collide = collide.to(q["item"].dtype)  # (H, C, N, G)
        bucket = collide.sum(2).clamp_(min=1)  # (H, C, G)
        weights = (collide @ (1 / bucket).unsqueeze(-1)).squeeze(-1) / of_target.shape[-1]
        return SearchResult(collide.mean(-1), weights, weights > 0, valid.expand_as(weights), weights)


# --------------------------------------------------------------- clusters of a user's behaviours: TWIN-V2


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
            """Numbers (H, N) minus the mean of their cluster."""
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

    A cluster's vector is the mean of its members', so its score is their mean score, and its weight, spread evenly over
    its members, is the softmax over behaviours of that mean, which contains the log of the size. The K clusters of
    highest score + log size are retrieved. Clusters are made anew at every forward pass from the detached item and
    category attention embeddings, until none has more than `largest` members (20, as published) or `levels` halvings
    are done; the published first cut by playing time has no counterpart here.
    """

    def __init__(self, top_k: int, history: int, largest: int = 20, more_levels: int = 1) -> None:
        super().__init__()
        self.top_k = top_k
        self.largest = largest
        self.levels = max(0, math.ceil(math.log2(history / largest))) + more_levels

    def forward(self, scores: Tensor, q: Rows, k: Rows, batch: Batch) -> SearchResult:
        content = torch.cat([k["item"], k["category"]], -1).detach()
        cluster = hierarchical_clusters(content, batch.valid, self.largest, self.levels)  # (H, N)
        inside = members(cluster, 2**self.levels, batch.valid)  # (H, N, M)
        size = inside.sum(1).unsqueeze(1)  # (H, 1, M)
        mean = scores @ inside.to(scores.dtype) / size.clamp(min=1)  # (H, C, M)
        ranking = (mean.detach() + size.clamp(min=1).log()).masked_fill(size == 0, -math.inf)
        clusters = ranking.topk(min(self.top_k, ranking.shape[-1]), -1).indices
        taken = torch.zeros_like(ranking, dtype=torch.bool).scatter(-1, clusters, True)
        columns = cluster.unsqueeze(1).expand_as(scores)
        valid = batch.valid.unsqueeze(1).expand_as(scores)
        of_cluster = mean.gather(-1, columns)
        retrieved = taken.gather(-1, columns) & valid
        return SearchResult(of_cluster, masked_softmax(of_cluster, retrieved), retrieved, valid)
