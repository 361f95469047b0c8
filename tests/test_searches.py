"""The searches one by one: hard, soft with tables of its own, hashing, clusters."""

import math

import pytest
import torch
from conftest import random_batch
from test_models import model

from dare_core.data.samples import Batch
from dare_core.models.attention import PositionTwice
from dare_core.models.click_model import ScaledDotProduct, TopK, masked_softmax
from dare_core.models.search import Hamming, OwnTables, SameCategory, SignatureBuckets, hierarchical_clusters


def rows_of(size: int = 4, histories: int = 5, candidates: int = 2, length: int = 40, seed: int = 0):
    """Random attention vectors of targets and behaviours, and the batch that they stand for."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, size, generator=generator, dtype=torch.float64)

    target = {"item": draw(histories, candidates), "category": draw(histories, candidates), "position": draw(1)}
    behaviour = {"item": draw(histories, length), "category": draw(histories, length), "position": draw(length)}
    return target, behaviour, random_batch(histories, candidates, length, shortest=length // 2, seed=seed)


def sizes(rows) -> dict[str, int]:
    return {field: tensor.shape[-1] for field, tensor in rows.items()}


def test_hard_search_takes_the_newest_of_the_category_and_fills_up() -> None:
    batch = Batch(
        torch.tensor([[9, 9]]),
        torch.tensor([[1, 7]]),
        torch.tensor([[0, 0, 3, 4, 5, 6, 7]]),
        torch.tensor([[0, 0, 1, 1, 2, 1, 2]]),
    )
    for top_k, expected in ((2, ([3, 5], [5, 6])), (4, ([2, 3, 5, 6], [3, 4, 5, 6])), (7, ([2, 3, 4, 5, 6],) * 2)):
        keep = SameCategory(top_k).retrieved(batch)[0]
        assert tuple(row.nonzero().flatten().tolist() for row in keep) == expected, top_k
    published = SameCategory(6, retrieve_padding=True).retrieved(batch)[0]
    assert published.nonzero()[:, 1].tolist() == [1, 2, 3, 4, 5, 6] * 2


def test_position_counts_twice_in_the_hard_score() -> None:
    target, behaviour, _ = rows_of(size=4)
    by_hand = sum(torch.einsum("hcd,hnd->hcn", target[f], behaviour[f]) for f in ("item", "category")) / math.sqrt(12)
    position = (target["position"] @ behaviour["position"].T).unsqueeze(0)
    by_hand = by_hand + position / math.sqrt(12) + position / math.sqrt(4)
    assert torch.allclose(PositionTwice()(target, behaviour), by_hand)


@pytest.mark.parametrize("name", ["TWIN (hard)", "SIM (hard)"])
def test_hard_search_in_both_heads_or_in_one(name: str) -> None:
    built, batch = model(name), random_batch(shortest=8)
    output = built.compute(batch)
    keep = built.search.retrieved(batch)
    assert torch.equal(output.weights > 0, keep)
    everyone = batch.valid.unsqueeze(1).expand_as(keep)
    assert torch.equal(output.considered, keep if name == "TWIN (hard)" else everyone)


def test_soft_search_unit_ranks_by_its_own_tables() -> None:
    built, batch = model("SIM (soft)"), random_batch(shortest=8)
    assert isinstance(built.search, OwnTables)
    before = built.compute(batch).weights > 0
    with torch.no_grad():
        for table in built.embeddings.sets.parameters():
            table.neg_()
            table[0].zero_()
    assert torch.equal(built.compute(batch).weights > 0, before), "the model's own tables have no say in the search"
    with torch.no_grad():
        for table in built.search.parameters():
            table.mul_(torch.linspace(-2, 3, len(table)).unsqueeze(1))
    assert not torch.equal(built.compute(batch).weights > 0, before)


def test_eta_overlap_with_exact_search_grows_with_the_number_of_hashes() -> None:
    target, behaviour, batch = rows_of(size=8, histories=30)
    # Of equal length, so that the exact order is the order of angles, which hashing estimates.
    norm = sum(r.square().sum(-1) * (8 if f == "position" else 16) ** -0.5 for f, r in behaviour.items()).sqrt()
    behaviour = {f: r / norm.unsqueeze(-1) for f, r in behaviour.items()}
    behaviour["position"] = behaviour["position"][0] * 0  # a position of its own for each history is not possible
    exact = TopK(8).retrieved(ScaledDotProduct()(target, behaviour), batch.valid.unsqueeze(1))
    overlaps = []
    for hashes in (4, 16, 64, 256, 4096):
        search = Hamming(sizes(target), hashes, top_k=8).double()
        search.planes.draw(torch.Generator().manual_seed(1))
        keep = search.retrieved(target, behaviour, batch)
        assert (keep.sum(-1) == 8).all()
        overlaps.append(float((keep & exact).sum() / exact.sum()))
    assert overlaps == sorted(overlaps) and overlaps[0] < 0.5 and overlaps[-1] > 0.85, overlaps


def test_eta_breaks_ties_by_recency() -> None:
    target, behaviour, batch = rows_of(length=10)
    same = {f: torch.ones_like(r) for f, r in behaviour.items()}
    search = Hamming(sizes(target), 16, top_k=3).double()
    search.planes.draw(torch.Generator().manual_seed(1))
    keep = search.retrieved(target, same, batch)
    assert keep[..., -3:].all() and not keep[..., :-3].any()


@pytest.mark.parametrize("width", [1, 3])
def test_sdim_collides_as_often_as_expected(width: int) -> None:
    target, behaviour, batch = rows_of(size=6, histories=4, length=12)
    search = SignatureBuckets(sizes(target), hashes=8_000 * width, width=width).double()
    search.planes.draw(torch.Generator().manual_seed(2))
    found = search(ScaledDotProduct()(target, behaviour), target, behaviour, batch)
    factors = {"item": 12**-0.25, "category": 12**-0.25, "position": 6**-0.25}
    q = torch.cat([(r * factors[f]).expand(4, 2, -1) for f, r in target.items()], -1)
    k = torch.cat([(r * factors[f]).expand(4, 12, -1) for f, r in behaviour.items()], -1)
    angle = torch.nn.functional.cosine_similarity(q.unsqueeze(2), k.unsqueeze(1), dim=-1).acos()
    expected = (1 - angle / math.pi) ** width * batch.valid.unsqueeze(1)
    # Five standard deviations of a mean of 8,000 indicators.
    assert (found.scores - expected).abs().max() < 5 * 0.5 / math.sqrt(8_000)


def test_sdim_averages_buckets_then_groups() -> None:
    target, behaviour, batch = rows_of(length=20)
    search = SignatureBuckets(sizes(target), hashes=12, width=3).double()
    search.planes.draw(torch.Generator().manual_seed(3))
    found = search(ScaledDotProduct()(target, behaviour), target, behaviour, batch)
    q, k = search.signatures(target), search.signatures(behaviour)
    for h in range(5):
        for c in range(2):
            by_hand = torch.zeros(20, dtype=torch.float64)
            filled = 0
            for g in range(4):
                bucket = [i for i in range(20) if batch.valid[h, i] and k[h, i, g] == q[h, c, g]]
                filled += bool(bucket)
                for i in bucket:
                    by_hand[i] += 1 / len(bucket) / 4
            assert torch.allclose(found.weights[h, c], by_hand)
            assert math.isclose(float(by_hand.sum()), filled / 4), "an empty bucket gives no weight"


def test_clusters_are_nested_bounded_and_keep_equals_together() -> None:
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(6, 200 // 5, 8, generator=generator, dtype=torch.float64)
    vectors = centres.repeat_interleave(5, 1)[:, torch.randperm(200, generator=generator)]
    valid = torch.arange(200) >= torch.tensor([0, 0, 50, 100, 190, 200]).unsqueeze(1)
    coarse = hierarchical_clusters(vectors, valid, largest=20, levels=3)
    fine = hierarchical_clusters(vectors, valid, largest=20, levels=6)
    assert torch.equal(fine[valid] >> 3, coarse[valid])
    counts = torch.stack([row[keep].bincount(minlength=64) for row, keep in zip(fine, valid, strict=True)])
    assert counts.amax() <= 40 and (counts[:3] <= 20).float().mean() > 0.9
    assert (counts[4] > 0).sum() == 1, "ten behaviours are not cut"
    for h in range(3):
        for i in range(0, 200, 7):
            same = (vectors[h] == vectors[h, i]).all(-1) & valid[h]
            assert len(fine[h, same].unique()) <= 1


def test_cluster_attention_is_score_plus_log_size() -> None:
    built = model("TWIN-V2", top_k=3)
    built.search.largest, built.search.levels = 3, 3
    batch = random_batch(histories=4, length=12, shortest=9)
    output = built.compute(batch)
    used = output.vectors.used
    query, key = used["attention", "target"], used["attention", "behaviour"]
    content = torch.cat([key["item"], key["category"]], -1).detach()
    member = hierarchical_clusters(content, batch.valid, 3, 3)
    for h in range(4):
        clusters = [
            [i for i in range(12) if batch.valid[h, i] and member[h, i] == m] for m in member[h].unique().tolist()
        ]
        clusters = [c for c in clusters if c]
        assert len(clusters) > 3
        for c in range(3):
            logits = []
            for cluster in clusters:  # the score of the mean of the members' vectors
                mean = {f: (r if f == "position" else r[h])[cluster].mean(0) for f, r in key.items()}
                q = {f: (r[0] if f == "position" else r[h, c]) for f, r in query.items()}
                value = (q["item"] @ mean["item"] + q["category"] @ mean["category"]) / math.sqrt(10)
                logits.append(value + q["position"] @ mean["position"] / math.sqrt(5) + math.log(len(cluster)))
            values, order = torch.stack(logits).topk(3)
            by_hand = torch.zeros(12, dtype=torch.float64)
            for weight, at in zip(values.softmax(0), order.tolist(), strict=True):
                by_hand[clusters[at]] = weight / len(clusters[at])
            assert torch.allclose(output.weights[h, c], by_hand)


def test_one_behaviour_a_cluster_is_twin() -> None:
    built, twin, batch = model("TWIN-V2", top_k=40), model("TWIN", top_k=12), random_batch(shortest=6)
    batch.history_items[:] = torch.arange(1, 13) * batch.valid  # equal behaviours would share a cluster
    built.load_state_dict(twin.state_dict())
    built.search.largest, built.search.levels = 1, 11
    scores = twin.compute(batch).scores
    assert torch.allclose(
        built.compute(batch).weights, masked_softmax(scores, batch.valid.unsqueeze(1).expand_as(scores))
    )
