"""Studies: parameters, subsets, statistics by hand, the null world, and the notebooks' form."""

import ast
import json
from pathlib import Path

import nbformat
import numpy as np
import papermill
import polars as pl
import pytest

from dare_core.book import chapter_names, chapter_parameters, notebook_of
from dare_core.data.generated import WorldConfig, generate
from dare_core.errors import InputError
from dare_core.metrics import auc
from dare_core.relevance import relevance_counts
from dare_core.runs import RunStore
from dare_core.studies import STUDIES, convergence, data, your_own_log
from dare_core.studies.common import Experiment, Record, StudyConfig, resolve_log
from dare_core.studies.convergence import iterations_to
from dare_core.studies.gradients import block_interval, negative_steps, norm_ratio
from dare_core.studies.scores import subset_mask

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
QUICK = {"world_users": 40, "seeds": 2, "epochs": 1, "targets": 5}


@pytest.mark.parametrize("name", STUDIES)
def test_notebook_parameters_are_the_study_s(name: str) -> None:
    defaults = {k: f.default for k, f in STUDIES[name].Config.model_fields.items()}
    found = papermill.inspect_notebook(notebook_of(name))
    assert {k: ast.literal_eval(v["default"]) for k, v in found.items()} == defaults
    assert set(STUDIES) == set(chapter_names())


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebooks_store_text_only(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    assert any("parameters" in cell.metadata.get("tags", []) for cell in notebook.cells)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            assert output["output_type"] in ("stream", "execute_result"), cell.source
            assert set(output.get("data", {"text/plain": ""})) == {"text/plain"}, cell.source


@pytest.mark.parametrize("profile", ["smoke", "standard", "full", "paper"])
@pytest.mark.parametrize("name", STUDIES)
def test_profiles_are_valid(profile: str, name: str) -> None:
    assert chapter_parameters(name, profile, {})["profile"] == profile


def test_bad_parameters_are_one_sentence() -> None:
    with pytest.raises(InputError, match="'seeds'"):
        convergence.Config.checked({"sedes": 3})
    with pytest.raises(InputError, match="size"):
        convergence.Config.checked({"size": "large"})
    with pytest.raises(InputError, match="seeds"):
        convergence.Config.checked({"seeds": 0})
    with pytest.raises(InputError, match="'DARE'"):
        convergence.Config.checked({"models": "DAER"})
    with pytest.raises(InputError, match="logs"):
        convergence.Config.checked({"logs": "generated,,"})
    assert convergence.Config.checked({"logs": " a , b,a"}).log_names == ["a", "b"]


def test_null_worlds_draw_any_negative() -> None:
    config = StudyConfig()
    twin, null = (generate(WorldConfig(kind=kind, users=20)) for kind in ("twin", "independent"))
    assert config.samples_for(twin).negative_rule == "unclicked"
    assert config.samples_for(null).negative_rule == "any"
    assert StudyConfig(negative_rule="unclicked").samples_for(null).negative_rule == "unclicked"


def experiment(name: str, **changes: object) -> Experiment:
    config = StudyConfig.checked({**QUICK, **changes})
    store = RunStore(progress=False)
    return Experiment(config, name, resolve_log(config, name, store), store)


def test_subsets() -> None:
    world = experiment("generated")
    test = world.samples(1)["test"]
    new, seen = subset_mask(test, "new", "unclicked"), subset_mask(test, "seen", "unclicked")
    assert new[:, 1:].all() and (new[:, 0] == test.new[:, 0].numpy()).all() and not new[:, 0].all()
    assert ((seen | subset_mask(test, "unseen", "unclicked")) == subset_mask(test, "all", "any")).all()
    assert (subset_mask(test, "new", "any") == test.new.numpy()).all()


def test_nothing_can_be_predicted_on_the_independent_world() -> None:
    """At least 4,000 test positives: three models, every rule, AUC within 0.5 +- 0.02."""
    world = experiment("independent", world_users=4_200, seeds=1, targets=3, epochs=1)
    world.train(["DARE", "TWIN", "DIN"])
    labels = world.samples(1)["test"].labels
    assert len(labels) >= 4_000
    scores = {m: world.test_scores(m)[0] for m in ("DARE", "TWIN", "DIN")}
    scores |= {name: values[0] for name, values in world.rule_test_scores().items()}
    found = {name: auc(labels, values) for name, values in scores.items()}
    assert len(found) == 10
    assert all(abs(value - 0.5) < 0.02 for value in found.values()), found


def test_the_published_rule_leaks_where_nothing_can_be_predicted() -> None:
    """The control of the control: few items and negatives that were never clicked, and a rule predicts."""
    few = generate(WorldConfig(kind="independent", users=500, items=1_000, categories=40))
    for rule, leaks in (("any", False), ("unclicked", True)):
        config = StudyConfig.checked({**QUICK, "negative_rule": rule, "seeds": 1})
        world = Experiment(config, "independent", few, RunStore(progress=False))
        world.store.log(few.card.name)
        labels = world.samples(1)["test"].labels
        value = auc(labels, world.rule_test_scores()["item in history"][0])
        assert (value > 0.55) == leaks, (rule, value)


def test_iterations_to_a_level_by_hand() -> None:
    curves = np.array([[0.5, 0.7, 0.6, 0.9], [0.5, 0.5, 0.5, 0.5], [0.8, 0.1, 0.1, 0.1]])
    steps = np.array([10.0, 20.0, 30.0, 40.0])
    assert list(iterations_to(curves, steps, np.array([0.6, 0.6, 0.6]))) == [15.0, np.inf, 10.0]
    assert iterations_to(curves[:1], steps, np.array([0.75]))[0] == pytest.approx(35.0)


def test_gradient_statistics_by_hand() -> None:
    assert norm_ratio(np.array([4.0, 6.0]), np.array([1.0, 1.0])) == 5.0
    assert negative_steps(np.array([-0.1, 0.2, -0.3, 0.4])) == 0.5
    rng = np.random.default_rng(0)
    series = [[5 + rng.normal(0, 0.5, 100), 1 + rng.normal(0, 0.1, 100)] for _ in range(3)]
    interval = block_interval(series, norm_ratio)
    assert interval.low < 5 < interval.high and interval.high - interval.low < 0.5


def test_convergence_writes_its_record(own_store: Path) -> None:
    config = convergence.Config.checked({**QUICK, "models": "DARE,TWIN"})
    result = convergence.run(config)
    content = json.loads((own_store / "book" / "smoke" / "results" / "convergence.json").read_text())
    assert content["runs"] == {"computed": 4, "reused": 0}
    (line,) = content["rows"]
    assert line["claim"] == "C1" and line["log"] == "generated" and line["seeds"] == 2
    scores = pl.read_csv(own_store / "book" / "smoke" / "results" / "convergence_scores.csv")
    assert set(scores["model or rule"]) >= {"DARE", "TWIN", "popularity", "logistic regression on these"}
    again = convergence.run(config)
    assert (again.record.store.computed, again.record.store.reused) == (0, 4)
    assert again.record.rows == result.record.rows
    other = convergence.run(config.model_copy(update={"size": 4}))
    assert other.record.tables["scores"][0]["AUC all"] != result.record.tables["scores"][0]["AUC all"]
    shown = convergence.show_curves(result)
    assert "alt=" in shown.html and "DARE on generated" in shown.text


def test_relevance_counts_by_brute_force() -> None:
    world = experiment("generated")
    train = world.samples(1)["train"]
    counts = relevance_counts(train, 4, 6)
    batch = train.batch(slice(0, len(train)))
    information = counts.mutual_information()
    from sklearn.metrics import mutual_info_score

    for target in (0, 2):
        for behaviour in (0, 1):
            for position in (1, 4):
                x, y = [], []
                for h in range(len(train)):
                    for c in range(3):
                        if int(train.categories[h, c]) == counts.categories[target]:
                            x.append(int(batch.history_categories[h, -position]) == counts.categories[behaviour])
                            y.append(c == 0)
                expected = mutual_info_score(x, y) / np.log(2)
                assert information[target, behaviour, position - 1] == pytest.approx(expected, abs=1e-9)


def test_data_judges_the_generated_world() -> None:
    result = data.run(data.Config.checked({"world_users": 300, "targets": 19}))
    assert {r.quantity: r.verdict for r in result.record.rows} == {"same_minus_other": "holds", "decay_slope": "holds"}


def test_your_own_log_reads_any_columns(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "clicks.csv"
    lines = ["wer;was;wozu"]
    for user in range(60):
        lines += [f"u{user};p{rng.integers(200)};{'abcde'[rng.integers(5)]}" for _ in range(30)]
    path.write_text("\n".join(lines))
    config = your_own_log.Config.checked(
        {
            **QUICK,
            "path": str(path),
            "user_column": "wer",
            "item_column": "was",
            "category_column": "wozu",
            "history": 10,
            "shortest_user": 25,
            "models": "DARE,TWIN",
        }
    )
    result = your_own_log.run(config)
    assert not result.demonstration and result.experiment.log.card.users == 60
    assert "DARE minus TWIN" in your_own_log.answer(result)
    with pytest.raises(InputError, match="no file"):
        your_own_log.run(config.model_copy(update={"path": str(tmp_path / "none.csv")}))
    with pytest.raises(InputError, match="210"):
        your_own_log.run(config.model_copy(update={"shortest_user": 210}))


def test_record_labels_the_kind_of_log() -> None:
    record = Record("data", StudyConfig.checked(QUICK), RunStore(progress=False))
    world = record.use("generated")
    record.judge("A1", "decay_slope", None, world, "too few positions")
    assert record.rows[0].kind == "generated log" and record.rows[0].verdict == "cannot be tested here"
    assert notebook_of("data").name == "01_data.ipynb"
