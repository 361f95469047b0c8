"""The language chapter: its texts by hand, its numbers by brute force, its store, its record."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import run_chapter

from dare_core.errors import InputError
from dare_core.evaluation.intervals import interval, user_groups
from dare_core.files import project_root
from dare_core.language.gpt import KINDS
from dare_core.language.runs import LanguageRun
from dare_core.language.text import open_text, plays_text, spoken
from dare_core.language.training import NANOGPT, NANOGPT_LOSS, LanguageRunConfig
from dare_core.studies.projections import Comparison

TINY = project_root().parent / "shared" / "data" / "tinyshakespeare" / "input.txt"
QUICK = {"sizes": "32,4", "seeds": 2, "iterations": 10, "block": 16, "batch": 2, "layers": 1}

MARKED = r"""# Macbeth

## ACT I

### SCENE I. A desert place.

_Thunder and lightning. Enter
three Witches_

**First Witch**~~
When shall we three meet again~~
In thunder, lightning, or in rain?

_Aside_

'Fair is foul,'\--said I.

**MACBETH:**~~
_\[Aside]_~~
So foul & fair &amp; late _\[ ]_
Go—now *[He draws
his sword.]*, sir_

1\. A lively flourish.~~
2\. Then, two Judges,
in their robes.

**BANQUO**~~
[Within]_~~
__\[Awaking]_~~
How far is't?~~
""".replace("~~", "  ")  # Markdown's line break
CLEAN = """First Witch:
When shall we three meet again
In thunder, lightning, or in rain?
'Fair is foul,'--said I.

MACBETH:
So foul & fair & late
Go--now , sir

BANQUO:
How far is't?
"""


def test_only_what_is_spoken_is_kept() -> None:
    assert spoken(MARKED) == CLEAN
    assert spoken(CLEAN) == CLEAN.replace("\n\n", "\n")  # only marked names begin a speech


def test_the_plays_are_clean_and_held_out_whole() -> None:
    text = plays_text()
    assert not set("_*#\\]()") & set(text.characters) and len(text.characters) < 80
    assert "Enter " not in text.validation.replace("Enter ", "", 20)  # a few are spoken
    assert 0.08 < len(text.validation) / len(text.training) < 0.13
    assert "HAMLET:\nTo be, or not to be: that is the question:" in text.training
    assert "ORLANDO:\nAs I remember, Adam," in text.validation and "Adam, it was upon this" not in text.training


def test_codes_are_the_text() -> None:
    text = plays_text()
    training, validation = text.encoded
    assert "".join(text.characters[i] for i in training[:500]) == text.training[:500]
    assert "".join(text.characters[i] for i in validation[-500:]) == text.validation[-500:]
    assert len(training) == len(text.training) and int(max(training.max(), validation.max())) < len(text.characters)


def test_a_file_is_split_in_order(tmp_path: Path) -> None:
    path = tmp_path / "own.txt"
    path.write_text("ab" * 500 + "c" * 10, "utf-8")
    text = open_text(str(path))
    assert (text.name, text.kind) == ("own", "own text") and text.characters == "abc"
    assert text.training == ("ab" * 500)[:909] and text.validation.endswith("c" * 10) and len(text.validation) == 101
    with pytest.raises(InputError, match="nothing-here"):
        open_text("nothing-here")


@pytest.mark.skipif(not TINY.exists(), reason="shared/data/tinyshakespeare/input.txt is not there")
def test_tiny_shakespeare_is_split_as_nanogpt_does() -> None:
    text = open_text(str(TINY))
    assert (text.name, text.kind, len(text.characters)) == ("tiny_shakespeare", "published text", 65)
    assert (len(text.training), len(text.validation)) == (1_003_854, 111_540)


def made_up(sizes: list[int], seeds: int, stretches: int = 12) -> Comparison:
    """Runs whose losses are random."""
    rng = np.random.default_rng(0)
    runs = {
        (kind, size, seed): LanguageRun(
            "", LanguageRunConfig(), [], rng.normal(2, 0.1, stretches), True, {"all": 1}, 0.0
        )
        for kind in KINDS
        for size in sizes
        for seed in range(1, seeds + 1)
    }
    return Comparison.of(runs)


def test_quantities_by_brute_force() -> None:
    comparison = made_up([64, 4, 2, 32], 3)

    def mean_gap(sizes: list[int], weights: np.ndarray, seeds: list[int]) -> float:
        gaps = []
        for size in sizes:
            for seed in seeds:
                losses = [comparison.runs[kind, size, seed].losses for kind in ("without", "with")]
                gaps.append(np.average(losses[0], weights=weights) - np.average(losses[1], weights=weights))
        return float(np.mean(gaps))

    found = comparison.claims()
    plain = np.ones(12)
    large = mean_gap([64, 32], plain, [1, 2, 3])
    small = mean_gap([4, 2], plain, [1, 2, 3])
    assert found["loss_gap_above_16"].estimate == pytest.approx(large)
    assert found["gap_small_minus_large"].estimate == pytest.approx(small - large)
    groups = user_groups(np.arange(12))
    assert len(set(groups)) == 12  # fewer stretches than 50: each is a group
    left_out = comparison.gap([64, 32])
    assert left_out.shape == (3, 13)
    for group in (0, 7):
        for seed in (1, 2, 3):
            weights = (groups != group).astype(float)
            assert left_out[seed - 1, 1 + group] == pytest.approx(mean_gap([64, 32], weights, [seed]))
    assert interval(comparison.gap([64])).estimate == pytest.approx(mean_gap([64], plain, [1, 2, 3]))
    assert comparison.gap([32])[:, 0] == pytest.approx([mean_gap([32], plain, [s]) for s in (1, 2, 3)])


def test_a_gap_that_is_there_is_found_and_none_where_sizes_are_missing() -> None:
    comparison = made_up([32, 8], 2, stretches=64)
    for seed in (1, 2):  # without maps: 0.2 nats worse at 32 on every stretch, equal at 8
        runs = comparison.runs
        runs["without", 32, seed].losses[:] = runs["with", 32, seed].losses + 0.2
        runs["without", 8, seed].losses[:] = runs["with", 8, seed].losses
    found = Comparison.of(comparison.runs).claims()
    assert (found["loss_gap_above_16"].low, found["loss_gap_above_16"].high) == pytest.approx((0.2, 0.2))
    assert found["gap_small_minus_large"].estimate == pytest.approx(-0.2)
    shape = {size: Comparison.of(comparison.runs).shape(size)[1:] for size in (32, 8)}
    assert shape == {32: ("maps help", "yes"), 8: ("no gap to be seen", "yes")}
    for seed in (1, 2):
        runs["without", 8, seed].losses[:] -= 0.1
        runs["without", 32, seed].losses[:] -= 0.2
    shape = {size: Comparison.of(comparison.runs).shape(size)[1:] for size in (32, 8)}
    assert shape == {32: ("no gap to be seen", "undecided"), 8: ("maps harm", "no")}
    assert not made_up([16, 8], 1).claims() and set(made_up([32], 1).claims()) == {"loss_gap_above_16"}


def test_stretches_of_a_long_text_are_left_out_in_fifty_groups_and_seeds_count() -> None:
    comparison = made_up([32, 8], 3, stretches=128)
    assert comparison.gap([32]).shape == (3, 51) and comparison.stretches == 128
    few = comparison.claims()["loss_gap_above_16"]
    for size in (32, 8):  # a seed that moves every loss without maps widens the interval
        for seed in (1, 2, 3):
            comparison.runs["without", size, seed].losses[:] += 0.1 * seed
    moved = Comparison.of(comparison.runs).claims()["loss_gap_above_16"]
    assert moved.seeds == 3 and moved.freedom < few.freedom
    assert moved.high - moved.low > 5 * (few.high - few.low)


def own_text(folder: Path) -> str:
    path = folder / "speech.txt"
    path.write_text("O, that this too too solid flesh would melt,\n" * 1_000, "utf-8")
    return str(path)


def test_the_study_writes_its_record_and_reuses_its_runs(own_store: Path, tmp_path: Path) -> None:
    settings = {**QUICK, "text": own_text(tmp_path)}
    chapter = run_chapter("language", **settings)
    record = chapter["record"]
    content = json.loads((record.config.results_path / "language.json").read_text())
    assert content["runs"] == {"computed": 12, "reused": 0}
    assert [line["quantity"] for line in content["rows"]] == ["gap_small_minus_large", "loss_gap_above_16"]
    assert {line["kind"] for line in content["rows"]} == {"own text"} and content["rows"][0]["seeds"] == 2
    assert content["rows"][0]["fingerprint"] == content["logs"]["speech"]["fingerprint"]
    assert len(record.tables["losses"]) == 6 and len(record.tables["gaps"]) == 4
    gaps = {(line["size"], line["maps"]): line for line in record.tables["gaps"]}
    paired = chapter["comparison"].gap([32], "without")[:, 0]
    assert [gaps[32, "without"][f"seed {seed}"] for seed in (1, 2)] == list(paired)
    assert gaps[32, "without"]["minus with"] == pytest.approx(paired.mean())
    runs = sorted((own_store / "language").iterdir())
    (runs[0] / "losses.safetensors").write_bytes(b"damaged")
    again = run_chapter("language", **settings)["record"]
    assert (again.store.computed, again.store.reused) == (1, 11)
    assert again.rows == record.rows
    longer = run_chapter("language", **settings | {"iterations": 20, "sizes": "32"})["record"]
    assert longer.rows[1].ours != record.rows[1].ours
    assert longer.rows[0].verdict == "cannot be tested here" and "both sides" in longer.rows[0].note
    alone = run_chapter("language", **settings | {"seeds": 1})["record"]
    for row in alone.rows:  # the number is shown, and not judged
        assert row.ours is not None and row.verdict == "cannot be tested here" and "1 of at least 2 seeds" in row.note
    losses, curves = (shown for shown in chapter["shown"] if "[figure]" in repr(shown))
    for drawn in (losses, curves):
        assert "alt=" in drawn.html and "without" in drawn.text
    assert "size 32" in curves.text and "P3" in record.summary()


def test_nanogpt_s_setting() -> None:
    """What its page says of it."""
    model, training = NANOGPT.model, NANOGPT.training
    assert NANOGPT_LOSS == 1.88
    assert (model.layers, model.heads, model.size, model.block) == (4, 4, 128, 64)
    assert training.iterations == 2_000 and training.learning_rate == 1e-3
