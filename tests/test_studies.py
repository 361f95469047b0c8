"""Studies: parameters, subsets, statistics by hand, the null world, and the notebooks' form."""

import ast
import json
from dataclasses import replace
from pathlib import Path

import nbformat
import numpy as np
import papermill
import polars as pl
import pytest
from conftest import make_log, run_chapter

from dare_core.chapters import chapter_names, chapter_parameters, notebook_of
from dare_core.data.generated import WorldConfig, generate
from dare_core.errors import InputError
from dare_core.evaluation.intervals import UNKNOWN, Interval, all_above, interval, ratio_interval
from dare_core.evaluation.metrics import auc
from dare_core.evaluation.relevance import relevance_counts
from dare_core.report.claims import load_claims
from dare_core.report.verdict import judge
from dare_core.studies.experiment import Competence, Experiment, Record
from dare_core.studies.learning import (
    Speedup,
    by_step,
    iterations_to,
    negative_share,
    negative_steps,
    norm_ratio,
    speedup,
    speedup_of,
)
from dare_core.studies.scores import identical_rows, subset_mask
from dare_core.studies.settings import CONFIGS, ConvergenceConfig, GradientsConfig, MethodConfig, StudyConfig
from dare_core.training.gradients import GradientRecord
from dare_core.training.runs import RunStore, _Opened

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
QUICK = {"world_users": 40, "seeds": 2, "epochs": 1, "targets": 5}


@pytest.mark.parametrize("name", CONFIGS)
def test_notebook_parameters_are_the_study_s(name: str) -> None:
    defaults = {k: f.default for k, f in CONFIGS[name].model_fields.items()}
    found = papermill.inspect_notebook(notebook_of(name))
    assert {k: ast.literal_eval(v["default"]) for k, v in found.items()} == defaults
    assert set(CONFIGS) == set(chapter_names())


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebooks_store_text_only(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    assert any("parameters" in cell.metadata.get("tags", []) for cell in notebook.cells)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            assert output["output_type"] in ("stream", "execute_result"), cell.source
            assert set(output.get("data", {"text/plain": ""})) == {"text/plain"}, cell.source


@pytest.mark.parametrize("profile", ["smoke", "standard", "full", "paper", "scale"])
@pytest.mark.parametrize("name", CONFIGS)
def test_profiles_are_valid(profile: str, name: str) -> None:
    assert chapter_parameters(name, profile, {})["profile"] == profile


def test_worlds_have_settings_of_their_own() -> None:
    text = '{"repeat_share": 0.1, "items_per_style": 5}'
    config = StudyConfig.checked({"logs": "styled", "world": text, "world_users": 50, "world_seed": 4})
    world = config.world_settings("styled", 2)
    assert (world.repeat_share, world.users, world.world_seed) == (0.1, 50, 5)
    assert config.world_settings("styled", 1).model_copy(update={"world_seed": 5}) == world
    large = StudyConfig().world_settings("world_100m")
    assert (large.items, large.categories) == (4_068_790, 9_407) and large.users > 80_000
    for wrong, said in (('{"interests": 3}', "'interests'"), ("{", "not JSON"), ('{"repeat_share": 0.9}', "below 1")):
        with pytest.raises(InputError, match=said):
            StudyConfig.checked({"logs": "styled", "world": wrong})


def test_bad_parameters_are_one_sentence() -> None:
    with pytest.raises(InputError, match="'seeds'"):
        ConvergenceConfig.checked({"sedes": 3})
    with pytest.raises(InputError, match="size"):
        ConvergenceConfig.checked({"size": "large"})
    with pytest.raises(InputError, match="seeds"):
        ConvergenceConfig.checked({"seeds": 0})
    with pytest.raises(InputError, match="'DARE'"):
        ConvergenceConfig.checked({"models": "DAER"})
    with pytest.raises(InputError, match="logs"):
        ConvergenceConfig.checked({"logs": "generated,,"})
    assert ConvergenceConfig.checked({"logs": " a , b,a"}).log_names == ["a", "b"]


def test_null_worlds_draw_any_negative() -> None:
    config = StudyConfig()
    twin, null = (generate(WorldConfig(kind=kind, users=20)) for kind in ("twin", "independent"))
    assert config.samples_for(twin).negative_rule == "unclicked"
    assert config.samples_for(null).negative_rule == "any"
    assert StudyConfig(negative_rule="unclicked").samples_for(null).negative_rule == "unclicked"


def experiment(name: str, **changes: object) -> Experiment:
    return Experiment(StudyConfig.checked({**QUICK, **changes}), name, RunStore(progress=False))


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
    scores |= {name: values[0] for name, values in world.rule_scores().items()}
    found = {name: auc(labels, values) for name, values in scores.items()}
    assert len(found) == 10
    assert all(abs(value - 0.5) < 0.02 for value in found.values()), found


def test_the_published_rule_leaks_where_nothing_can_be_predicted() -> None:
    """The control of the control: few items and negatives that were never clicked, and a rule predicts."""
    few = {"world_users": 500, "world_items": 1_000, "world_categories": 40, "seeds": 1}
    for rule, leaks in (("any", False), ("unclicked", True)):
        world = experiment("independent", negative_rule=rule, **few)
        labels = world.samples(1)["test"].labels
        value = auc(labels, world.rule_scores()["item in history"][0])
        assert (value > 0.55) == leaks, (rule, value)


def test_each_seed_of_a_generated_log_has_its_own_world() -> None:
    world = experiment("generated", seeds=3)
    assert len({world.log_of(seed).fingerprint for seed in world.seeds}) == 3
    assert world.log_of(2).card.created_with["world_seed"] == 2 and world.worlds == 3
    assert world.run_config("DARE", 2).log == world.log_of(2).card.name
    assert world.groups(world.samples(1)["test"]) is None, "the world is the unit"
    assert world.fingerprint == experiment("generated", seeds=1, world_seed=7).fingerprint
    assert world.fingerprint != experiment("generated", world_users=41).fingerprint
    smaller = experiment("generated", world_items=5_000, world_categories=300)
    assert (smaller.log.card.items, smaller.log.card.categories) == (5_000, 300)


def competence(model_auc: float, rule: float, low: float, steps: int = 2_000) -> Competence:
    return Competence("DARE", model_auc, "a rule", Interval(rule, low, 2 * rule - low, 0.01, 30, 3), steps)


def test_competence_comes_before_verdicts() -> None:
    """study.md: at least .9 of the best rule's way from 1/2, 300 steps per epoch, the rule above 1/2."""
    assert competence(0.79, 0.775, 0.76).value == pytest.approx(0.29 / 0.275)
    assert competence(0.79, 0.775, 0.76).not_learned == ""
    assert competence(0.746, 0.775, 0.76).not_learned.endswith("competence 0.89")
    assert competence(0.748, 0.775, 0.76).not_learned == ""
    assert "299 of at least 300 steps" in competence(0.79, 0.775, 0.76, 299).not_learned
    assert "nothing to learn" in competence(0.6, 0.51, 0.49).not_learned
    assert "nothing to learn" in competence(0.6, 0.5, 0.49).not_learned


def test_competence_is_measured_on_trained_models() -> None:
    world = experiment("generated", world_users=60, targets=19, epochs=2)
    found = world.competence
    labels = [world.samples(seed)["test"].labels for seed in world.seeds]
    best = np.mean([auc(y, p) for y, p in zip(labels, world.rule_scores()[found.rule], strict=True)])
    assert found.rule_interval.estimate == pytest.approx(best)
    assert found.steps == -(-60 * 19 * 3 // 32)
    assert 0 < found.value < 1.5


def test_iterations_to_a_level_by_hand() -> None:
    curves = np.array([[0.5, 0.7, 0.6, 0.9], [0.5, 0.5, 0.5, 0.5], [0.8, 0.1, 0.1, 0.1]])
    steps = np.array([10.0, 20.0, 30.0, 40.0])
    assert list(iterations_to(curves, steps, np.array([0.6, 0.6, 0.65]))) == [15.0, 40.0, 10.0]
    assert iterations_to(curves[:1], steps, np.array([0.75]))[0] == pytest.approx(35.0)


def test_c1_of_equal_models_contains_1() -> None:
    """TWIN against TWIN with other seeds: at least 95 % of intervals contain 1, levels out of reach included."""
    rng = np.random.default_rng(0)
    steps = np.arange(1, 21) * 100.0
    quantity = load_claims()["C1"].of("speedup_70")
    alarms = []
    for _ in range(1_000):
        rate, best = np.exp(rng.normal(-6, 0.5, (2, 3))), rng.normal(0.78, 0.02, (2, 3))
        curves = 0.5 + (best[..., None] - 0.5) * (1 - np.exp(-rate[..., None] * steps))
        curves += rng.normal(0, 0.003, curves.shape)
        taken = [iterations_to(own, steps, np.full(3, 0.7))[:, None] for own in curves]
        alarms.append(judge(quantity, ratio_interval(*taken)).direction != "neither")
    assert np.mean(alarms) <= 0.05


def test_two_models_that_never_arrive_are_not_equally_fast() -> None:
    world = experiment("generated", seeds=2)
    runs = world.runs_at("TWIN")
    never = speedup(world, runs, runs, 3.0)
    assert never.ratio is UNKNOWN and never.note == "no model reaches the level"
    at_once = speedup(world, runs, runs, 0.01)
    assert at_once.ratio is not None and at_once.ratio.estimate == 1 and "first validation" in at_once.blocked


def test_a_level_that_is_passed_before_the_first_validation_makes_no_model_equally_fast() -> None:
    slow, fast = np.array([[300.0], [320.0], [310.0]]), np.full((3, 1), 200.0)
    found = speedup_of(slow, fast, 200)
    assert found.ratio is not None and found.ratio.low > 1 and not found.blocked and "3 of 3 seeds" in found.note
    assert speedup_of(fast, fast, 200).blocked
    assert speedup_of(slow, slow / 2, 100) == Speedup(ratio_interval(slow, slow / 2))


def gradient_record(representation: float, attention: float, cosines: list[float]) -> GradientRecord:
    steps = len(cosines)
    one = np.ones((1, steps))
    names = np.array(["category"])
    return GradientRecord(
        names, attention * one, representation * one, np.array([cosines]), 0 * one, one, one, np.ones((1, 40))
    )


def test_gradient_statistics_by_hand() -> None:
    assert negative_steps(np.array([-0.1, 0.2, -0.3, 0.4])) == 0.5
    assert negative_steps(np.array([-0.1, np.nan, 0.3])) == 0.5
    records = [gradient_record(ratio, 1.0, [-1.0, -1.0, 1.0, 1.0]) for ratio in (2.0, 4.0, 8.0)]
    ratio = norm_ratio(records, "category", slice(0, 100))
    assert ratio.estimate == pytest.approx(4.0) and ratio.freedom == 2 and ratio.logarithmic
    assert negative_share(records, "category", slice(None)).estimate == 0.5
    assert np.isnan(norm_ratio([gradient_record(1.0, 0.0, [1.0])], "category", slice(0, 100)).estimate)
    uneven = [gradient_record(1.0, 1.0, [0.1, 0.2, 0.3]), gradient_record(1.0, 1.0, [0.4, 0.5])]
    assert by_step(uneven, "mean_cosine").tolist() == [[0.1, 0.2], [0.4, 0.5]]


def test_gradients_are_not_judged_before_300_steps() -> None:
    chapter = run_chapter("gradients", **QUICK | {"seeds": 3})
    for line in chapter["record"].rows:
        assert line.verdict == "cannot be tested here" and "of at least 300 recorded steps" in line.note
    assert {(line.claim, line.primary) for line in chapter["record"].rows} == {("G1", True), ("G2", True)}
    assert {setting for _, _, setting in chapter["gradients"]} == {"published", "own start"}


def test_gradients_need_a_shared_table() -> None:
    with pytest.raises(InputError, match="DARE shares no table"):
        GradientsConfig.checked({"models": "TWIN,DARE"})


def test_convergence_writes_its_record(own_store: Path) -> None:
    settings = {**QUICK, "models": "DARE,TWIN"}
    chapter = run_chapter("convergence", **settings)
    record = chapter["record"]
    content = json.loads((record.config.results_path / "convergence.json").read_text())
    lines = {line["quantity"]: line for line in content["rows"]}
    assert {line["claim"] for line in content["rows"]} == {"C1"} and lines["speedup_70"]["primary"]
    assert lines["speedup_70"]["verdict"] == "cannot be tested here", "two worlds, few steps"
    assert lines["speedup_70"]["worlds"] == 2 and lines["speedup_70"]["embedding_size"] == 16
    scores = pl.read_csv(record.config.results_path / "convergence_scores.csv")
    assert set(scores["model or rule"]) >= {"DARE", "TWIN", "popularity", "logistic regression on these"}
    again = run_chapter("convergence", **settings)["record"]
    assert again.store.computed == 0
    assert again.rows == record.rows
    other = run_chapter("convergence", **settings, **{"size": 4})["record"]
    assert other.tables["scores"][0]["AUC"] != record.tables["scores"][0]["AUC"]
    drawn = next(shown for shown in chapter["shown"] if "[figure]" in repr(shown))
    assert "alt=" in drawn.html and "Generated log, DARE" in drawn.text


def test_nothing_to_learn_is_not_judged() -> None:
    """C1 on the world in which nothing can be predicted."""
    settings = {**QUICK, "logs": "independent", "seeds": 3, "targets": 19, "world_users": 180}
    record = run_chapter("convergence", **settings)["record"]
    found = {line.quantity: line for line in record.rows}["speedup_70"]
    assert found.verdict == "cannot be tested here"
    assert "nothing to learn" in found.note or "not learned" in found.note, found.note


def test_overall_judges_only_what_is_trained() -> None:
    models = "DARE,TWIN,TWIN (w/o TR),TWIN-4E"
    record = run_chapter("overall", **QUICK | {"models": models, "seeds": 3})["record"]
    lines = {line.quantity: line for line in record.rows}
    assert lines["dare_minus_best_other"].ours is None and lines["dare_minus_best_other"].verdict == "not studied yet"
    assert lines["smallest_of_four"].ours is None
    assert lines["smallest_of_four"].note == "a part is missing: ETA, SDIM, TWIN-V2"
    for quantity in ("dare_minus_twin", "twin_minus_without_tr", "dare_minus_twin_4e"):
        assert lines[quantity].ours is not None and lines[quantity].verdict == "cannot be tested here"
    assert "gain_16_minus_gain_128" not in lines


def test_of_several_comparisons_the_smallest_is_judged() -> None:
    noise = np.random.default_rng(0).normal(0, 0.01, (3, 4))
    values = {"DARE": 0.8 + noise, "TWIN": 0.7 + noise**2, "DIN": 0.75 - noise}
    leads = {name: values["DARE"] - values[name] for name in ("TWIN", "DIN")}
    assert all_above({"alone": leads["TWIN"]}) == interval(leads["TWIN"])
    assert all_above(leads).estimate == pytest.approx(leads["DIN"][:, 0].mean())


def test_method_searches_the_recipe(own_store: Path) -> None:
    asked = {"seeds": 3, "search": True, "rates": "0.01", "steps": "100,200", "identical": 3}
    chapter = run_chapter("method", **QUICK | asked)
    tables = chapter["record"].tables
    assert {row["steps per epoch"] for row in tables["recipe"]} == {100, 200}
    assert tables["identical"] == [], "a world is no sample of users"
    assert tables["competence"][0]["judged"] != "yes"
    shown = "\n".join(map(repr, chapter["shown"]))
    assert "100 steps" in shown
    assert "False alarms (orange): P2: " in shown, "the stored ones, in place of those of this log"


def test_the_rules_are_tried_on_identical_models() -> None:
    """On a log that was not generated: the unit is users and seeds."""
    log = make_log(users=60, shortest=25)
    store = RunStore(progress=False)
    opened = _Opened(replace(log, card=log.card.model_copy(update={"kind": "published log"})))
    store._open = lambda name: opened
    small = {"history": 20, "targets": 4, "spacing": 3, "shortest_user": 25, "epochs": 1, "seeds": 2, "size": 4}
    experiment = Experiment(MethodConfig.checked({**small, "logs": "by_hand"}), "by_hand", store)
    rows = identical_rows(experiment, 3)
    assert [row["claim"] for row in rows] == ["P2", "O1"] * 3 + ["C1"] * 3
    assert {row["false alarm"] for row in rows} <= {"yes", "no"}
    assert len({row["estimate"] for row in rows if row["claim"] == "P2"}) == 3, "each model has its own weights"


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


def test_what_is_built_into_a_generated_world_is_not_judged() -> None:
    record = run_chapter("data", world_users=300, targets=19)["record"]
    lines = {line.quantity: line for line in record.rows}
    assert set(lines) == {"same_minus_other", "decay_slope"}
    assert lines["same_minus_other"].direction == "claimed"
    assert {line.verdict for line in lines.values()} == {"cannot be tested here"}
    assert all("built into" in line.note for line in lines.values())


def test_record_labels_the_kind_of_log() -> None:
    record = Record("data", StudyConfig.checked(QUICK), RunStore(progress=False))
    world = record.use("generated")
    record.judge("A1", "decay_slope", None, world, "too few positions")
    assert record.rows[0].kind == "generated log" and record.rows[0].verdict == "cannot be tested here"
    assert notebook_of("data").name == "data.ipynb"
