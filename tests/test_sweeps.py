"""Chapters that vary one setting: what they train, what they compare, and bad parameters. Trainings are
replaced by predictions whose AUC is known, but for the null world."""

import dataclasses
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import run_chapter

from dare_core.config import RunConfig
from dare_core.data.logs import Log
from dare_core.errors import InputError
from dare_core.evaluation.intervals import Interval, user_groups
from dare_core.evaluation.relevance import information_gains
from dare_core.evaluation.retrieval import ndcg, retrieve, retrieve_by_rule
from dare_core.models.zoo import ClickModel, build_model
from dare_core.report.verdict import LedgerRow
from dare_core.studies import efficiency, scores
from dare_core.studies.experiment import Experiment
from dare_core.studies.scores import at_own_best, made_with, own_best
from dare_core.studies.search_stage import SearchTime
from dare_core.studies.settings import RetrievalNumberConfig, SearchEfficiencyConfig, StudyConfig, numbers
from dare_core.training.runs import RunStore, counts_of


def untrained(config: RunConfig, log: Log) -> ClickModel:
    """The model of a configuration before its first step."""
    return build_model(config.model, counts_of(log, config.samples)).eval()


QUICK = {"world_users": 40, "seeds": 3, "epochs": 1, "targets": 3}
SEARCH = {**QUICK, "search_length": 50, "search_rounds": 5}
Good = Callable[[RunConfig], bool]


@pytest.fixture
def predict(monkeypatch: pytest.MonkeyPatch) -> Callable[[Good], list[RunConfig]]:
    """Make every run perfect (AUC 1) where the given function of its configuration says so, else 0.5; and let the
    models have learned."""
    monkeypatch.setattr(Experiment, "competence", SimpleNamespace(value=1.0, not_learned="", rule="popularity"))
    monkeypatch.setattr("dare_core.studies.search_stage.USERS_BYTES", 2**16)

    def use(good: Good) -> list[RunConfig]:
        asked: list[RunConfig] = []

        def get(store: RunStore, config: RunConfig) -> SimpleNamespace:
            asked.append(config)
            labels = store.samples(config)["test"].labels.astype(np.float32)
            probability = labels if good(config) else np.full_like(labels, 0.5)
            return SimpleNamespace(test_probability=probability, model=partial(untrained, config))

        monkeypatch.setattr(RunStore, "get_many", lambda store, configs: [get(store, config) for config in configs])
        return asked

    return use


def world(**changes: object) -> Experiment:
    config = StudyConfig.checked({**QUICK, **changes})
    return Experiment(config, "generated", RunStore(progress=False))


def test_numbers() -> None:
    assert numbers(RetrievalNumberConfig.checked({"retrieved": " 100, 5,20,5"}).retrieved) == [5, 20, 100]
    for text in ("", "1,,2", "0", "-1", "1.5", "many"):
        with pytest.raises(InputError, match="'lengths'.*whole numbers"):
            RetrievalNumberConfig.checked({"lengths": text})
    with pytest.raises(InputError, match="retrieved"):
        RetrievalNumberConfig.checked({"retrieved": "5,x"})
    with pytest.raises(InputError, match="parts"):
        SearchEfficiencyConfig.checked({"parts": ""})
    with pytest.raises(InputError, match="divided by 3"):
        SearchEfficiencyConfig.checked({"parts": "1,3"}).attention_sizes(16)


def test_another_length_has_the_same_targets_and_negatives() -> None:
    experiment = world()
    short, long = (experiment.samples(1, history=n) for n in (10, 200))
    for split in ("train", "validation", "test"):
        for name in ("users", "row", "start", "items", "categories", "new"):
            assert (getattr(short[split], name) == getattr(long[split], name)).all(), (split, name)
        newest = long[split].batch(slice(0, 9)).history_items[:, -10:]
        assert (short[split].batch(slice(0, 9)).history_items == newest).all()
    other = experiment.samples(2, history=10)["test"].items  # of another world
    assert other.shape != short["test"].items.shape or (other != short["test"].items).any()
    assert experiment.best_rule(10)[1] != experiment.best_rule(200)[1]


def test_what_search_efficiency_trains(predict: Callable[[Good], list[RunConfig]]) -> None:
    asked = predict(lambda config: False)
    run_chapter("search_efficiency", **SEARCH, further_sizes="32")
    # The whole size has no attention size of its own: it is the run that the other chapters have.
    dare = {("DARE", 16, None), ("DARE", 16, 8), ("DARE", 16, 4), ("DARE", 32, None), ("DARE", 32, 16), ("DARE", 32, 8)}
    twin = {("TWIN", size, None) for size in (32, 16, 8, 4)}
    assert {(c.model.name, c.model.size, c.model.attention_size) for c in asked} == dare | twin
    assert {c.seed for c in asked} == {1, 2, 3} and len({c.samples for c in asked}) == 1
    assert len({(c.seed, c.log) for c in asked}) == 3  # a world per seed


@pytest.mark.parametrize("parts, kept", [("2,4", [1, 2, 4]), ("1", [1]), ("16", [1, 16]), ("8,2", [1, 2, 8])])
def test_every_choice_of_parts_ends_in_a_result(
    predict: Callable[[Good], list[RunConfig]], parts: str, kept: list[int]
) -> None:
    """Review B10: without part 1 the chapter ended in a traceback."""
    predict(lambda config: False)
    config = SearchEfficiencyConfig.checked({**SEARCH, "parts": parts, "further_sizes": "16"})
    assert list(config.attention_sizes(16)) == kept and config.sizes == [16]
    chapter = run_chapter("search_efficiency", **SEARCH, parts=parts, further_sizes="16")
    rows = {r.quantity: r for r in chapter["record"].rows}
    assert set(rows) == {q.quantity for q in chapter["record"].claims["E1"].quantities}
    for quantity, row in rows.items():
        part = 4 if "quarter" in quantity else 2
        assert (row.ours is None) == (part not in config.attention_sizes(16))
        assert row.ours is not None or f"part {part}" in row.note
    assert sum("alt=" in shown.html for shown in chapter["shown"] if shown) == 3


def test_sizes_that_no_model_has_are_one_sentence() -> None:
    for name in ("further_sizes", "parts"):
        with pytest.raises(InputError):
            run_chapter("search_efficiency", **SEARCH, **{name: "3,2000"})
    with pytest.raises(InputError, match="100,000"):
        RetrievalNumberConfig.checked({"lengths": "100001"})


@pytest.mark.parametrize(
    "good, losses",
    [
        (lambda c: c.model.name == "DARE" or c.model.size == 16, (0.0, 0.0, 0.5, 0.5)),
        (lambda c: c.model.name == "TWIN" or c.model.attention_size is None, (0.5, 0.5, -0.5, -0.5)),
        (lambda c: c.model.attention_size != 4, (0.0, 0.5, 0.0, -0.5)),
    ],
)
def test_what_e1_compares(
    predict: Callable[[Good], list[RunConfig]], good: Good, losses: tuple[float, float, float, float]
) -> None:
    predict(good)
    chapter = run_chapter("search_efficiency", **SEARCH)
    rows = {r.quantity: r for r in chapter["record"].rows}
    names = ("loss_half_dare", "loss_quarter_dare", "loss_half_twin_minus_dare", "loss_quarter_twin_minus_dare")
    assert [rows[name].ours for name in names] == pytest.approx(list(losses))
    for name, loss in zip(names, losses, strict=True):
        if name.endswith("minus_dare"):
            expected = "holds" if loss > 0 else "contradicted" if loss < 0 else "undecided"
        else:  # less than the margin of .005
            expected = "holds" if loss < 0.005 else "contradicted"
        assert rows[name].verdict == expected, name
        assert (rows[name].worlds, rows[name].low) == (3, pytest.approx(loss))
    lines = chapter["record"].tables["scores"]
    assert [(r["model"], r["K_A"], r["K_R"]) for r in lines][1::3] == [("DARE", 8, 16), ("TWIN", 8, 8)]
    figures = [shown for shown in chapter["shown"] if shown and "alt=" in shown.html]
    assert len(figures) == 3 and "Time saved" in figures[1].text


def test_time_is_one_row_without_a_log_whatever_the_number_of_logs(
    predict: Callable[[Good], list[RunConfig]],
) -> None:
    predict(lambda config: True)
    record = run_chapter("search_efficiency", **SEARCH, logs="generated,no_decay")["record"]
    (row,) = (r for r in record.rows if r.quantity == "search_time_half")
    assert (row.log, row.kind, row.fingerprint) == (None, None, None) and row.ours is not None and row.ours > 0
    assert row.verdict == "cannot be tested here" and "shown, not judged" in row.note and "machine" in row.note
    assert len(record.rows) == 2 * 4 + 1


def test_time_ratio_by_hand() -> None:
    whole = np.array([2.0, 4.0, 2.0, 2.0, 2.0])  # a slow round slows both
    half = SearchTime(10, 8, np.array([1.0, 2.0, 1.0, 1.0, 1.2]), whole)
    found = efficiency.time_ratio(half, SearchTime(10, 16, whole, whole))
    logs = np.log([0.5, 0.5, 0.5, 0.5, 0.6])
    margin = 2.7764451 * logs.std(ddof=1) / 5**0.5  # Student's t, 4 degrees of freedom
    assert found.estimate == pytest.approx(np.exp(logs.mean())) and found.logarithmic
    assert (found.low, found.high) == pytest.approx(tuple(np.exp(logs.mean() + np.array([-margin, margin]))))


def test_what_d1_and_d2_compare(predict: Callable[[Good], list[RunConfig]]) -> None:
    def good(config: RunConfig) -> bool:
        dare = config.model.name == "DARE"
        few, short = config.model.top_k == 5, config.samples.history == 20
        return (dare and not short) or (not dare and not few and not short)

    asked = predict(good)
    chapter = run_chapter("retrieval_number", **QUICK, models="DARE,TWIN,DIN")
    settings = {(c.model.top_k, c.samples.history) for c in asked}
    assert settings == {(5, 200), (20, 200), (100, 200), (20, 20)} and len(asked) == 4 * 3 * 3
    rows = {r.quantity: (r.ours, r.verdict) for r in chapter["record"].rows}
    assert rows == {
        "advantage_few_minus_many": (0.5, "holds"),
        "dare_long_minus_short": (0.5, "holds"),
        "advantage_long_minus_short": (0.0, "undecided"),
    }
    assert "not computed at own best" in chapter["record"].rows[0].note
    figures = [shown for shown in chapter["shown"] if shown and "alt=" in shown.html]
    by_k, by_ndcg = (shown.text for shown in figures)
    assert "Generated log: 0.5000 at K = 5, 0.0000 at K = 20, 0.0000 at K = 100" in by_k
    assert "Generated log: 0.0000 at N = 20, 0.0000 at N = 200" in by_k
    assert "Generated log" not in by_ndcg, "no target category has enough samples"


def test_d1_needs_5_and_100_and_asks_for_each_model_s_own_best(
    predict: Callable[[Good], list[RunConfig]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def good(config: RunConfig) -> bool:
        return config.model.name == "DARE" or config.model.top_k != 5

    asked = predict(good)

    def rows_of(**changes: object) -> list[LedgerRow]:
        found: list[LedgerRow] = run_chapter("retrieval_number", **QUICK | changes)["record"].rows
        return found

    row = rows_of(retrieved="5,50")[0]
    assert (row.claim, row.verdict, row.ours) == ("D1", "not studied yet", None)
    assert row.note == "not computed here: K = 5 and 100"
    asked.clear()
    row = rows_of()[0]
    assert (row.ours, row.verdict) == (0.5, "holds") and "not computed at own best" in row.note
    other = Interval(0.0, -0.1, 0.1, 0.05, 2, 3)
    monkeypatch.setattr(scores, "at_own_best", lambda *asked: other)
    row = rows_of()[0]
    assert (row.ours, row.verdict) == (0.5, "undecided") and "the direction is neither" in row.note
    row = rows_of(history=50, lengths="50")[0]
    assert "N = 50, at K = 100 all retrieved" in row.note
    alone = rows_of(models="DARE,DIN")
    assert {r.note for r in alone} == {"not computed here: TWIN"} and len(alone) == 3


def test_quality_is_ndcg_at_the_number_retrieved_of_so_long_a_history(
    predict: Callable[[Good], list[RunConfig]],
) -> None:
    predict(lambda config: True)
    settings = {**QUICK, "seeds": 2, "least_samples": 5, "least_cell": 1, "retrieved": "5,20", "lengths": "20"}
    chapter = run_chapter("retrieval_number", **settings)
    config, (experiment,) = chapter["config"], chapter["experiments"]
    lines = {(r["varied"], r["K"], r["N"], r["model"]): r for r in chapter["record"].tables["scores"]}
    for varied, k, n in (("K", 5, 200), ("K", 20, 200), ("N", 20, 20)):
        values = []
        for seed in (1, 2):  # each in its own world
            splits = experiment.samples(seed, history=n)
            gains = information_gains(splits["train"], splits["test"], config.rule)
            (run,) = experiment.store.get_many([experiment.run_config("TWIN", seed, top_k=k, history=n)])
            order = retrieve(run.model(experiment.log_of(seed)), splits["test"], k).order
            values.append(np.nanmean(ndcg(gains.information[gains.judged], order[gains.judged])[:, k - 1]))
        assert lines[varied, k, n, "TWIN"]["NDCG"] == pytest.approx(np.mean(values))
        assert lines[varied, k, n, "same category, then newest"]["NDCG"] > lines[varied, k, n, "random"]["NDCG"]
        assert lines[varied, k, n, "random"]["AUC"] is None
    assert lines["K", 20, 200, "random"]["NDCG"] < lines["N", 20, 20, "random"]["NDCG"]  # of 20, 20 are right


def test_on_one_log_users_are_left_out_in_groups(predict: Callable[[Good], list[RunConfig]]) -> None:
    predict(lambda config: True)
    name = world().log.card.name  # asked for by its own name a world is one log
    settings = {**QUICK, "logs": name, "seeds": 2, "least_samples": 5, "least_cell": 1, "lengths": "20"}
    chapter = run_chapter("retrieval_number", **settings, retrieved="5")
    (experiment,) = chapter["experiments"]
    test = experiment.samples(2)["test"]
    groups = user_groups(test.users.numpy())
    values = chapter["ndcg"][name]["random", 5, 200]
    assert values.shape == (2, 1 + len(set(groups))) == chapter["auc"][name]["TWIN", 5, 200].shape
    splits = experiment.samples(2)
    gains = information_gains(splits["train"], test, experiment.config.rule)
    order = retrieve_by_rule("random", test, 5, 2).order
    kept = gains.judged & (groups != 3)[:, None]
    assert values[1, 4] == pytest.approx(np.nanmean(ndcg(gains.information[kept], order[kept])[:, -1]))


def test_lengths_that_a_log_does_not_have_are_left_out(predict: Callable[[Good], list[RunConfig]]) -> None:
    asked = predict(lambda config: True)
    record = run_chapter("retrieval_number", **QUICK, lengths="20,200,1000", retrieved="20")["record"]
    assert {c.samples.history for c in asked} == {20, 200}
    assert {r.claim for r in record.rows if r.ours is not None} == {"D2"}  # one number: nothing to compare
    only = run_chapter("retrieval_number", **QUICK, lengths="1000", retrieved="20")
    assert all(r.ours is None for r in only["record"].rows)
    assert sum("alt=" in shown.html for shown in only["shown"] if shown) == 2
    assert "two lengths" in only["record"].rows[-1].note


def test_no_advantage_where_nothing_can_be_predicted() -> None:
    settings = {**QUICK, "logs": "independent", "world_users": 200, "size": 8, "history": 40}
    record = run_chapter("retrieval_number", **settings, retrieved="5,100", lengths="10,40")["record"]
    lines = [r for r in record.tables["scores"] if r["AUC"] is not None]
    assert len(lines) == 8 and all(abs(r["AUC"] - 0.5) < 0.05 for r in lines)
    assert all(abs(r["DARE minus it"]) < 0.05 for r in lines if r["model"] == "TWIN")
    assert len(record.rows) == 3
    for row in record.rows:
        assert row.ours is not None and row.verdict == "cannot be tested here" and row.note


def search_row(experiment: Experiment, **changes: object) -> dict[str, object]:
    row = {**made_with(experiment), "model": "DARE"}
    more = {"learning rate": 0.003, "steps per epoch": 1_000, "own best grid": True, "validation AUC": 0.8}
    return row | more | changes


def test_an_own_best_setting_is_that_of_this_log_size_and_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = Experiment(StudyConfig.checked(QUICK), "generated", RunStore(progress=False))
    batch = round(experiment.training_samples / 1_000)
    rows = [search_row(experiment), search_row(experiment, **{"learning rate": 0.03, "own best grid": False})]
    assert own_best(experiment, "DARE", rows) == {"learning_rate": 0.003, "batch_size": max(2, batch)}
    recipe = search_row(experiment, **{"steps per epoch": 2_000, "validation AUC": 0.9})
    assert own_best(experiment, "DARE", [*rows, recipe]) == {"learning_rate": 0.003, "batch_size": None}
    assert own_best(experiment, "TWIN", rows) is None
    other = Experiment(StudyConfig.checked({**QUICK, "top_k": 5}), "generated", experiment.store)
    assert own_best(other, "DARE", rows) is None, "another protocol"
    for changes in ({"fingerprint": "another"}, {"size": 64}, {"epochs": 7}, {"protocol": "another"}):
        assert own_best(experiment, "DARE", [search_row(experiment, **changes)]) is None
    found = Interval(0.1, 0.0, 0.2, 0.05, 2.0, 3)
    stored = [search_row(experiment, claim="D1", quantity="q", **dataclasses.asdict(found))]
    monkeypatch.setattr(scores, "stored_rows", lambda chapter, name: stored)
    assert at_own_best(experiment, "D1", "q") == found
    assert at_own_best(experiment, "D1", "another") is None
    stored[0]["fingerprint"] = "another"
    assert at_own_best(experiment, "D1", "q") is None
