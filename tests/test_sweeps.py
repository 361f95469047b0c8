"""Chapters that vary one setting: what they train, what they compare, and bad parameters. Trainings are
replaced by predictions whose AUC is known, but for the null world."""

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from dare_core.config import RunConfig
from dare_core.data.logs import Log
from dare_core.errors import InputError
from dare_core.gains import information_gains
from dare_core.models import ClickModel, build_model
from dare_core.retrieval import ndcg, retrieve
from dare_core.runs import RunStore, counts_of
from dare_core.search_time import SearchTime
from dare_core.studies import retrieval_number, search_efficiency
from dare_core.studies.common import Experiment, StudyConfig, resolve_log
from dare_core.studies.sweeps import best_rule, numbers, samples_at


def untrained(config: RunConfig, log: Log) -> ClickModel:
    """The model of a configuration before its first step."""
    return build_model(config.model, counts_of(log, config.samples)).eval()


QUICK = {"world_users": 40, "seeds": 2, "epochs": 1, "targets": 3}
SEARCH = {**QUICK, "search_length": 50, "search_rounds": 5}
Good = Callable[[RunConfig], bool]


@pytest.fixture
def predict(monkeypatch: pytest.MonkeyPatch) -> Callable[[Good], list[RunConfig]]:
    """Make every run perfect (AUC 1) where the given function of its configuration says so, else 0.5."""
    monkeypatch.setattr("dare_core.search_time.USERS_BYTES", 2**16)

    def use(good: Good) -> list[RunConfig]:
        asked: list[RunConfig] = []

        def get(store: RunStore, config: RunConfig) -> SimpleNamespace:
            asked.append(config)
            labels = store.samples(config)["test"].labels.astype(np.float32)
            probability = labels if good(config) else np.full_like(labels, 0.5)
            return SimpleNamespace(test_probability=probability, model=partial(untrained, config))

        monkeypatch.setattr(RunStore, "get", get)
        return asked

    return use


def world(**changes: object) -> Experiment:
    config = StudyConfig.checked({**QUICK, **changes})
    store = RunStore(progress=False)
    return Experiment(config, "generated", resolve_log(config, "generated", store), store)


def test_numbers() -> None:
    assert numbers(" 100, 5,20,5") == [5, 20, 100]
    for text in ("", "1,,2", "0", "-1", "1.5", "many"):
        with pytest.raises(ValueError, match="whole numbers"):
            numbers(text)
    with pytest.raises(InputError, match="retrieved"):
        retrieval_number.Config.checked({"retrieved": "5,x"})
    with pytest.raises(InputError, match="parts"):
        search_efficiency.Config.checked({"parts": ""})
    with pytest.raises(InputError, match="divided by 3"):
        search_efficiency.Config.checked({"parts": "1,3"}).attention_sizes(16)


def test_another_length_has_the_same_targets_and_negatives() -> None:
    experiment = world()
    short, long = (samples_at(experiment, 1, n) for n in (10, 200))
    for split in ("train", "validation", "test"):
        for name in ("users", "row", "start", "items", "categories", "new"):
            assert (getattr(short[split], name) == getattr(long[split], name)).all(), (split, name)
        newest = long[split].batch(slice(0, 9)).history_items[:, -10:]
        assert (short[split].batch(slice(0, 9)).history_items == newest).all()
    assert (samples_at(experiment, 2, 10)["test"].items != short["test"].items).any()  # the seed moves negatives
    assert best_rule(experiment, 10)[1] != best_rule(experiment, 200)[1]


def test_what_search_efficiency_trains(predict: Callable[[Good], list[RunConfig]]) -> None:
    asked = predict(lambda config: False)
    config = search_efficiency.Config.checked({**SEARCH, "further_sizes": "32"})
    search_efficiency.run(config)
    # The whole size has no attention size of its own: it is the run that the other chapters have.
    dare = {("DARE", 16, None), ("DARE", 16, 8), ("DARE", 16, 4), ("DARE", 32, None), ("DARE", 32, 16), ("DARE", 32, 8)}
    twin = {("TWIN", size, None) for size in (32, 16, 8, 4)}
    assert {(c.model.name, c.model.size, c.model.attention_size) for c in asked} == dare | twin
    assert {c.seed for c in asked} == {1, 2} and len({c.samples for c in asked}) == 1


@pytest.mark.parametrize(
    "good, losses",
    [
        (lambda c: c.model.name == "DARE" or c.model.size == 16, (0.5, 0.5, 0.0)),
        (lambda c: c.model.name == "TWIN" or c.model.attention_size is None, (-0.5, -0.5, 0.5)),
        (lambda c: c.model.attention_size != 4, (0.0, -0.5, 0.0)),
    ],
)
def test_what_e1_compares(
    predict: Callable[[Good], list[RunConfig]], good: Good, losses: tuple[float, float, float]
) -> None:
    predict(good)
    result = search_efficiency.run(search_efficiency.Config.checked(SEARCH))
    rows = {r.quantity: r for r in result.record.rows}
    names = ("loss_half_twin_minus_dare", "loss_quarter_twin_minus_dare", "loss_half_dare")
    assert [rows[name].ours for name in names] == pytest.approx(list(losses))
    signs = [value > 0 for value in losses[:2]] + [losses[2] < 0.001]
    assert [rows[name].verdict == "holds" for name in names] == signs
    assert rows["loss_half_dare"].low == pytest.approx(losses[2])
    lines = result.record.tables["scores"]
    assert [(r["model"], r["K_A"], r["K_R"]) for r in lines][1::3] == [("DARE", 8, 16), ("TWIN", 8, 8)]
    assert "saves" in search_efficiency.show_trade(result).text
    assert "alt=" in search_efficiency.show_auc(result).html + search_efficiency.show_time(result).html


def test_time_ratio_by_hand() -> None:
    whole = np.array([2.0, 4.0, 2.0, 2.0, 2.0])  # a slow round slows both
    half = SearchTime(10, 8, np.array([1.0, 2.0, 1.0, 1.0, 1.2]), whole)
    interval = search_efficiency.time_ratio(half, SearchTime(10, 16, whole, whole))
    assert interval.estimate == 0.5 and interval.low == 0.5 and 0.5 <= interval.high <= 0.6


def test_what_d1_and_d2_compare(predict: Callable[[Good], list[RunConfig]]) -> None:
    def good(config: RunConfig) -> bool:
        dare = config.model.name == "DARE"
        few, short = config.model.top_k == 5, config.samples.history == 20
        return (dare and not short) or (not dare and not few and not short)

    asked = predict(good)
    result = retrieval_number.run(retrieval_number.Config.checked({**QUICK, "models": "DARE,TWIN,DIN"}))
    settings = {(c.model.top_k, c.samples.history) for c in asked}
    assert settings == {(5, 200), (20, 200), (100, 200), (20, 20)} and len(asked) == 4 * 3 * 2
    rows = {r.quantity: (r.ours, r.verdict) for r in result.record.rows}
    assert rows == {
        "advantage_few_minus_many": (0.5, "holds"),
        "dare_long_minus_short": (0.5, "holds"),
        "advantage_long_minus_short": (0.0, "undecided"),
    }
    for shown in (retrieval_number.show_retrieved(result), retrieval_number.show_lengths(result)):
        assert "alt=" in shown.html and "generated, DIN" in shown.text


def test_quality_is_ndcg_at_the_number_retrieved_of_so_long_a_history(
    predict: Callable[[Good], list[RunConfig]],
) -> None:
    predict(lambda config: True)
    settings = {**QUICK, "seeds": 1, "least_samples": 5, "least_cell": 1, "retrieved": "5,20", "lengths": "20"}
    config = retrieval_number.Config.checked(settings)
    result = retrieval_number.run(config)
    experiment = result.views[0].experiment
    lines = {(r["varied"], r["K"], r["N"], r["model"]): r for r in result.record.tables["scores"]}
    for varied, k, n in (("K", 5, 200), ("K", 20, 200), ("N", 20, 20)):
        splits = samples_at(experiment, 1, n)
        gains = information_gains(splits["train"], splits["test"], config.rule)
        run = experiment.store.get(
            experiment.run_config("TWIN", 1, top_k=k).model_copy(
                update={"samples": experiment.run_config("TWIN", 1).samples.model_copy(update={"history": n})}
            )
        )
        order = retrieve(run.model(experiment.log), splits["test"], k).order
        values = ndcg(gains.information[gains.judged], order[gains.judged])[:, k - 1]
        assert lines[varied, k, n, "TWIN"]["NDCG"] == pytest.approx(np.nanmean(values))
        assert lines[varied, k, n, "same category, then newest"]["NDCG"] > lines[varied, k, n, "random"]["NDCG"]
        assert lines[varied, k, n, "random"]["AUC"] is None
    assert lines["K", 20, 200, "random"]["NDCG"] < lines["N", 20, 20, "random"]["NDCG"]  # of 20, 20 are right


def test_lengths_that_a_log_does_not_have_are_left_out(predict: Callable[[Good], list[RunConfig]]) -> None:
    asked = predict(lambda config: True)
    config = retrieval_number.Config.checked({**QUICK, "lengths": "20,200,1000", "retrieved": "20"})
    result = retrieval_number.run(config)
    assert {c.samples.history for c in asked} == {20, 200}
    assert {r.claim for r in result.record.rows} == {"D2"}  # one number retrieved: nothing to compare
    only = retrieval_number.run(config.model_copy(update={"lengths": "1000"}))
    assert not only.record.rows and "alt=" in retrieval_number.show_lengths(only).html


def test_no_advantage_where_nothing_can_be_predicted() -> None:
    settings = {**QUICK, "logs": "independent", "world_users": 800, "seeds": 1, "size": 8, "history": 40}
    config = retrieval_number.Config.checked({**settings, "retrieved": "1,20", "lengths": "10,40"})
    result = retrieval_number.run(config)
    # One seed: the interval knows of users only, and may miss 0 by what another seed would change.
    lines = [r for r in result.record.tables["scores"] if r["AUC"] is not None]
    assert len(lines) == 8 and all(abs(r["AUC"] - 0.5) < 0.05 for r in lines)
    assert all(abs(r["DARE minus it"]) < 0.05 for r in lines if r["model"] == "TWIN")
    assert len(result.record.rows) == 3 and not any(r.verdict.startswith("holds") for r in result.record.rows)
