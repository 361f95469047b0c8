"""Search by locality-sensitive hashing: ETA and SDIM.

A vector's bit for a random hyperplane is the side on which it lies; two vectors at angle a agree on a bit
with probability 1 - a / pi. Hyperplanes are drawn once, from the run's seed, and never trained.
"""

import math

import torch
from torch import Tensor, nn

from dare_core.data.samples import Batch
from dare_core.models.embeddings import Rows, Sizes
from dare_core.models.search import Found, Score, attend, best


class Hyperplanes(nn.Module):
    """`number` hyperplanes through the origin of the attention vector, as one (d, number) block a field.

    Fields are weighed so that the inner product of two hashed vectors is TWIN's score: content by
    (2 d)^(-1/4), position by d^(-1/4).
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
        blocks = dict(self.named_buffers())
        content = [field for field in rows if field != "position"]
        total = torch.cat([rows[field] * self.factors[field] for field in content], -1) @ torch.cat(
            [blocks[field] for field in content]
        )
        if "position" in rows:  # one product serves the whole batch
            total += (rows["position"] * self.factors["position"]) @ blocks["position"]
        return total


class Hamming(nn.Module):
    """ETA's search: the K behaviours whose fingerprints differ from the target's in the fewest bits.

    SimHash fingerprints of the attention vectors; among equal distances the newer is taken (Chen et al.
    2021, section 3). The retrieved ones are then attended to as in TWIN.
    """

    def __init__(self, sizes: Sizes, hashes: int, top_k: int, retrieve_padding: bool = False) -> None:
        super().__init__()
        self.planes = Hyperplanes(sizes, hashes)
        self.top_k = top_k
        self.retrieve_padding = retrieve_padding

    def retrieved(self, target: Rows, behaviour: Rows, batch: Batch) -> Tensor:
        """(H, C, N) true for the retrieved behaviours."""
        q, k = (self.planes(rows).sign_() for rows in (target, behaviour))
        agreement = q @ k.transpose(1, 2)  # number of hashes - 2 * distance: whole numbers, exact in float32
        length = k.shape[1]
        newer = torch.arange(length, device=k.device) / length
        return best(agreement + newer, batch.valid.unsqueeze(1), self.top_k, self.retrieve_padding)

    def forward(self, score: Score, target: Rows, behaviour: Rows, batch: Batch) -> Found:
        scores = score(target, behaviour)
        keep = self.retrieved(target, behaviour, batch)
        return Found(scores, attend(scores, keep), keep, batch.valid.unsqueeze(1).expand_as(scores))


class SignatureBuckets(nn.Module):
    """SDIM's attention: no search; behaviours in the target's hash bucket are averaged.

    `hashes` bits in groups of `width`: in each group the behaviours whose signature equals the target's
    are averaged, then the groups are (Cao et al. 2022, section 4). An empty bucket gives no weight, so a
    row of weights sums to the share of groups with a behaviour in the target's bucket. The score given
    beside is the share of groups in which a behaviour collides: (1 - angle / pi)^width in expectation.
    Hashing has no gradient: embeddings are trained through the representation alone. (Cao et al. also
    normalise each bucket's sum; the study's definition averages.)
    """

    def __init__(self, sizes: Sizes, hashes: int, width: int) -> None:
        super().__init__()
        if hashes % width:
            raise ValueError(f"{hashes} hashes cannot be cut into groups of {width}.")
        self.planes = Hyperplanes(sizes, hashes)
        self.width = width

    def signatures(self, rows: Rows) -> Tensor:
        """Whole numbers (H, C, G) or (H, N, G): the bits of each group."""
        side = self.planes(rows)
        bits = (side >= 0).unflatten(-1, (-1, self.width)).to(side.dtype)
        return bits @ 2.0 ** torch.arange(self.width, device=side.device, dtype=side.dtype)

    def forward(self, score: Score, target: Rows, behaviour: Rows, batch: Batch) -> Found:
        q, k = self.signatures(target), self.signatures(behaviour)
        valid = batch.valid.unsqueeze(1)
        collide = (q.unsqueeze(2) == k.unsqueeze(1)).logical_and_(valid.unsqueeze(-1))  # (H, C, N, G)
        collide = collide.to(target["item"].dtype)
        bucket = collide.sum(2).clamp_(min=1)  # (H, C, G)
        weights = (collide @ (1 / bucket).unsqueeze(-1)).squeeze(-1) / q.shape[-1]
        return Found(collide.mean(-1), weights, weights > 0, valid.expand_as(weights), weights)


def collision_probability(angle: Tensor, width: int) -> Tensor:
    """Probability that two vectors at an angle (radians) share a signature of `width` bits."""
    return (1 - angle / math.pi) ** width
