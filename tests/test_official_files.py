"""The authors' own files: weights, samples and scores, both directions."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SMALL_SAMPLES, make_log
from typer.testing import CliRunner

from dare_core.config import ModelConfig, RunConfig, TrainingConfig
from dare_core.data.samples import make_samples
from dare_core.errors import InputError
from dare_core.published import samples as official_samples
from dare_core.published.cli import official_app
from dare_core.published.samples import (
    SampleTable,
    read_samples,
    read_table,
    sample_table,
    write_rows,
    write_samples,
    write_table,
)
from dare_core.published.weights import export_run, export_weights, import_weights, score

FIXTURES = Path(__file__).parents[2] / "shared" / "fixtures" / "official"
VARIANTS = (
    "dare",
    "dare_small_attention",
    "twin",
    "din",
    "twin_4e",
    "twin_projection",
    "twin_projection_per_field",
    "dare_short_histories",
)
needs_fixtures = pytest.mark.skipif(
    not (FIXTURES / "dare.pth").exists(), reason=f"{FIXTURES.relative_to(FIXTURES.parents[3])}/dare.pth is not here"
)


class Trap:
    """What a harmful pickle does: run something when it is read."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


@needs_fixtures
@pytest.mark.parametrize("variant", VARIANTS)
def test_scores_of_published_weights(variant: str, tmp_path: Path) -> None:
    batch = "batch_short_histories" if "short" in variant else "batch"
    out = tmp_path / "out.npz"
    score(FIXTURES / f"{variant}.json", FIXTURES / f"{variant}.pth", FIXTURES / f"{batch}.npz", out, trust=True)
    ours, expected = np.load(out), np.load(FIXTURES / f"{variant}.npz")
    for name in ("scores", "features", "probability", "loss", "auxiliary_loss"):
        assert ours[name].dtype == np.float64 and ours[name].shape == expected[name].shape, name
        assert np.abs(ours[name] - expected[name]).max() < 1e-8, name


@needs_fixtures
@pytest.mark.parametrize("variant", VARIANTS)
def test_weights_return_as_they_came(variant: str, tmp_path: Path) -> None:
    config, theirs = FIXTURES / f"{variant}.json", FIXTURES / f"{variant}.pth"
    import_weights(config, theirs, tmp_path / "ours.safetensors", trust=True)
    export_weights(config, tmp_path / "ours.safetensors", tmp_path / "again.pth")
    before, after = (torch.load(p, weights_only=True) for p in (theirs, tmp_path / "again.pth"))
    assert set(before) == set(after)
    for name, weight in before.items():
        unused = variant == "din" and name.startswith("time")
        assert weight.shape == after[name].shape and weight.dtype == after[name].dtype, name
        assert torch.equal(weight, after[name]) or unused, name
    assert (tmp_path / "again.pth").stat().st_size < 1.1 * theirs.stat().st_size, "shared tables are stored once"


@needs_fixtures
def test_commands(tmp_path: Path) -> None:
    runner = CliRunner()
    given = ["--config", f"{FIXTURES}/twin.json", "--weights", f"{FIXTURES}/twin.pth"]
    out = str(tmp_path / "out.npz")
    arguments = ["score", *given, "--batch", f"{FIXTURES}/batch.npz", "--out", out]
    refused = runner.invoke(official_app, arguments)
    assert isinstance(refused.exception, InputError) and "--trust" in str(refused.exception)
    assert runner.invoke(official_app, [*arguments, "--trust"]).exit_code == 0
    ours = str(tmp_path / "w.safetensors")
    assert runner.invoke(official_app, ["import", *given, "--out", ours, "--trust"]).exit_code == 0
    exported = ["export", "--config", f"{FIXTURES}/twin.json", "--weights", ours, "--out", str(tmp_path / "w.pth")]
    assert runner.invoke(official_app, exported).exit_code == 0
    assert isinstance(runner.invoke(official_app, ["import", "--out", ours]).exception, InputError)


@needs_fixtures
def test_a_batch_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    batch = dict(np.load(FIXTURES / "batch.npz"))
    for name, wrong in (("item", batch["item"] + 1_000), ("history_items", batch["history_items"][:, 1:]),
                        ("label", batch["label"] * 1.0), ("category", None)):  # fmt: skip
        np.savez(tmp_path / "b.npz", **{k: v for k, v in (batch | {name: wrong}).items() if v is not None})
        with pytest.raises(InputError, match=name):
            score(FIXTURES / "twin.json", FIXTURES / "twin.pth", tmp_path / "b.npz", tmp_path / "o.npz", True)


@pytest.mark.parametrize("trust", [False, True])
def test_pickles_that_run_code_do_not(trust: bool, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    rows = np.empty((1, 6), object)
    rows[0, 0] = Trap(marker)
    np.save(tmp_path / "samples.npy", rows, allow_pickle=True)
    torch.save({"main_mlp.0.weight": Trap(marker)}, tmp_path / "weights.pth")
    (tmp_path / "raw.pth").write_bytes(pickle.dumps(Trap(marker), protocol=2))
    with pytest.raises(InputError, match="names|trust"):
        read_samples(tmp_path / "samples.npy", trust)
    config = tmp_path / "c.json"
    config.write_text((Path(__file__).parent / "official" / "dare.json").read_text())
    for weights in ("weights.pth", "raw.pth"):
        with pytest.raises(InputError, match="weights alone|trust"):
            import_weights(config, tmp_path / weights, tmp_path / "w.safetensors", trust)
    assert not marker.exists()


def test_samples_return_as_they_went(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(official_samples, "ROWS", 100)
    splits = make_samples(make_log(), SMALL_SAMPLES, seed=1)
    files = write_samples(splits, tmp_path / "out")
    training = [path for path in files if path.name.startswith("train_")]
    assert [path.name for path in training[:2]] == ["train_0001_100.npy", "train_0002_100.npy"]
    assert sorted(tmp_path.glob("out/*")) == sorted(files)

    stored = np.load(tmp_path / "out" / "test.npy", allow_pickle=True)
    assert stored.shape == (splits["test"].size, 6) and stored.dtype == object
    assert stored[0, 3] == [1, 0] and stored[1, 3] == stored[2, 3] == [0, 1]
    assert isinstance(stored[0, 4], list) and len(stored[0, 4]) == len(stored[0, 5]) == SMALL_SAMPLES.history

    def key(table: SampleTable) -> list[tuple[int, ...]]:
        columns = (table.user, table.item, table.category, table.click, table.history_items, table.history_categories)
        return [tuple(row) for row in np.column_stack(columns).tolist()]

    for split, name in (("validation", "val"), ("test", "test")):
        assert key(read_samples(tmp_path / "out" / f"{name}.npy", True)) == key(sample_table(splits[split]))
    read = [row for path in training for row in key(read_samples(path, True))]
    expected = key(sample_table(splits["train"]))
    assert read != expected and sorted(read) == sorted(expected), "shuffled, nothing lost"

    table = read_samples(tmp_path / "out" / "val.npy", True)
    write_table(tmp_path / "val.npz", table)
    write_rows(tmp_path / "again.npy", read_table(tmp_path / "val.npz"))
    assert (tmp_path / "again.npy").read_bytes() == (tmp_path / "out" / "val.npy").read_bytes()


@pytest.mark.parametrize(
    "row",
    [
        [1, 2, 3, [1, 0], [0, 4]],
        [1, 2, 3, [1, 1], [0, 4], [0, 5]],
        [1, 2, 3, [1, 0], [0, 4], [5]],
        [1, 2, 3, [1, 0], [0, 4], [5, 5]],
        [1, 0, 3, [1, 0], [0, 4], [0, 5]],
        [1, 2.5, 3, [1, 0], [0, 4], [0, 5]],
        ["u", 2, 3, [1, 0], [0, 4], [0, 5]],
    ],
)
def test_other_arrays_are_refused(row: list[object], tmp_path: Path) -> None:
    rows = np.empty((1, len(row)), object)
    for at, value in enumerate(row):
        rows[0, at] = value
    np.save(tmp_path / "s.npy", rows, allow_pickle=True)
    with pytest.raises(InputError, match="published form"):
        read_samples(tmp_path / "s.npy", True)
    np.save(tmp_path / "n.npy", np.arange(6))
    with pytest.raises(InputError, match="not objects"):
        read_samples(tmp_path / "n.npy", True)
    with pytest.raises(InputError, match="no file"):
        read_samples(tmp_path / "absent.npy", True)


def test_a_run_leaves_as_published_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dare_core.training import runs

    log = make_log()
    monkeypatch.setattr(runs, "load", lambda name: log)
    for auxiliary in (True, False):
        config = RunConfig(
            log="by_hand",
            samples=SMALL_SAMPLES,
            model=ModelConfig(name="TWIN (w/ proj.)", size=4, top_k=5),
            training=TrainingConfig(batch_size=60, epochs=1, auxiliary_loss=auxiliary),
        )
        run = runs.RunStore(progress=False).get(config)
        export_run(run.key, tmp_path / "out")
        arguments = json.loads((tmp_path / "out" / "config.json").read_text())
        assert arguments["model_name"] == "projection" and arguments["use_aux_loss"] is auxiliary
        import_weights(tmp_path / "out" / "config.json", tmp_path / "out" / "weights.pth", tmp_path / "w", True)
    config = config.model_copy(update={"model": ModelConfig(name="ETA", size=4, top_k=5)})
    run = runs.RunStore(progress=False).get(config)
    with pytest.raises(InputError, match="no counterpart"):
        export_run(run.key, tmp_path / "eta")
