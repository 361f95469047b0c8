"""Your own log: sizes, the answer in the order of its questions, the report, and the command."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import make_log

from dare_core import cli
from dare_core.data.generated import WorldConfig, generate
from dare_core.errors import InputError
from dare_core.evaluation.intervals import Interval, interval
from dare_core.own_log import study
from dare_core.own_log.answer import EXIT_STATUS, decide, learned, shown_card, too_small, users_needed
from dare_core.own_log.file import prepare_file
from dare_core.own_log.page import page, write_report
from dare_core.own_log.study import Config, Evidence, Learning, Size, resolved, size_of, targets_for
from dare_core.studies.experiment import Competence, Record
from dare_core.training.store import Validation

CHOSEN = Config.checked({"history": 200, "targets": 19, "shortest_user": 210, "top_k": 20})


def between(low: float, high: float) -> Interval:
    """An interval with these bounds, of 3 seeds."""
    middle, error = (low + high) / 2, (high - low) / 4
    return Interval(middle, low, high, error, 20.0, 3)


def known(model: float = 0.8, rule: float = 0.75, **changes: Any) -> Learning:
    found = Competence("DARE", model, "category decayed", between(rule - 0.01, rule + 0.01), 2_000)
    values: dict[str, Any] = {"competence": found, "collapsed": [], "new": between(0.68, 0.72), "new_targets": 900}
    scores = {"popularity": between(0.5, 0.52), "item in history": between(0.6, 0.64), "DARE": between(0.79, 0.81)}
    return Learning(**values | {"scores": scores} | changes)


def found(gain: Interval, wider: Interval | None = None, chosen: Interval | None = None, **changes: Any) -> Evidence:
    values: dict[str, Any] = {
        "gain": gain,
        "wider": wider or gain,
        "wide_gain": ABOVE,
        "chosen": chosen or gain,
        "chosen_k": {"DARE": 20, "TWIN": 5},
        "half_lost": between(-0.002, 0.002),
        "search": {16: 10.0, 8: 7.0},
        "dominance": between(3.0, 4.0),
        "conflict": between(0.6, 0.9),
        "megabytes": {"DARE": 4.0, "TWIN": 2.0},
        "scores": {"DARE": between(0.79, 0.81), "TWIN": between(0.77, 0.79)},
    }
    return Evidence(**values | changes)


ABOVE, ZERO, BELOW = between(0.01, 0.03), between(-0.01, 0.02), between(-0.03, -0.01)


@pytest.mark.parametrize(
    ("learning", "evidence", "code"),
    [
        (known(), found(ABOVE), "yes"),
        (known(), found(ABOVE, wider=ZERO), "wider_table"),
        (known(), found(ABOVE, wider=BELOW), "wider_table"),
        (known(), found(ABOVE, wider=ZERO, chosen=ZERO), "wider_table"),
        (known(), found(ABOVE, wider=ZERO, wide_gain=ZERO), "cannot_tell"),  # neither beats the other
        (known(), found(ABOVE, chosen=ZERO), "cannot_tell"),
        (known(), found(ABOVE, chosen=BELOW), "no"),
        (known(), found(ZERO), "cannot_tell"),
        (known(), found(BELOW), "no"),
        (known(), found(between(-0.0005, 0.0008)), "no"),  # one per mille is excluded
        (known(model=0.62), None, "stop"),  # the rule knows more
        (known(new=between(0.47, 0.53)), None, "stop"),  # chance on new items
        (known(new=None, new_targets=0), None, "stop"),  # no target is new
    ],
)
def test_the_first_question_that_is_not_a_yes_decides(learning: Learning, evidence: Evidence | None, code: str) -> None:
    answer = decide(learning, evidence, CHOSEN, 1_696)
    assert answer.code == code
    assert (learned(learning).answer == "yes") == (evidence is not None)
    assert answer.code in EXIT_STATUS and answer.reason.endswith(".")
    assert len(answer.questions) == (6 if evidence else 1)


def test_collapsed_training_is_named() -> None:
    everyone = [f"{model} seed {seed}" for model in ("DARE", "TWIN") for seed in (1, 2, 3)]
    bad = known(model=0.6, collapsed=everyone)
    assert "collapses" in decide(bad, None, CHOSEN, 1_000).headline
    assert "TWIN seed 2" in learned(known(collapsed=["TWIN seed 2"])).evidence

    class Run:
        def __init__(self, *aucs: float) -> None:
            self.history = [Validation(1, 1, 0.0, value, 0.0, 0.0) for value in aucs]
            self.best = max(self.history, key=lambda line: line.auc)

    assert study.collapsed(Run(0.7, 0.55))  # type: ignore[arg-type]
    assert not study.collapsed(Run(0.7, 0.68))  # type: ignore[arg-type]


def test_no_gain_between_identical_models_is_found_in_few_draws() -> None:
    draw, yes = np.random.default_rng(0), 0
    for _ in range(400):
        replicates = 0.01 * draw.standard_normal((3, 1)) + 0.002 * draw.standard_normal((3, 51))
        replicates[:, 1:] = replicates[:, :1] + 0.0005 * draw.standard_normal((3, 50))
        yes += decide(known(), found(interval(replicates)), CHOSEN, 1_000).code == "yes"
    assert yes <= 0.05 * 400


def test_users_needed_shrink_with_the_root() -> None:
    assert users_needed(between(0.0, 0.02), 1_000) < users_needed(between(-0.01, 0.03), 1_000)
    assert users_needed(between(-0.01, 0.01), 1_000) > 10_000  # nothing found: one per mille


@pytest.mark.parametrize(("shortest", "history"), [(215, 200), (115, 100), (45, 20), (25, 10), (12, 5)])
def test_the_history_is_the_longest_that_fills_the_steps(shortest: int, history: int) -> None:
    log = make_log(users=40)
    lengths = np.full(30_000, shortest)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    long = type(log)(log.card, np.zeros(0, np.int32), np.zeros(0, np.int32), offsets, log.item_category)
    chosen = resolved(Config.checked({}), long)
    assert (chosen.history, chosen.shortest_user, chosen.targets) == (
        history,
        history + min(10, history),
        targets_for(history, 5),
    )
    assert chosen.top_k == max(2, min(20, history // 5))
    assert resolved(Config.checked({"history": 50, "top_k": 7}), long).top_k == 7


def test_a_small_log_gets_no_training() -> None:
    assert "users" in Size(2, 2, 2, 114, 4).too_small and "steps" in Size(500, 400, 400, 8_000, 250).too_small
    assert Size(500, 400, 400, 8_000, 250).needed == 480
    assert too_small(Size(2, 2, 2, 114, 4)).code == "cannot_tell"


def test_one_item_is_refused() -> None:
    log = generate(WorldConfig(users=20, items=2_900))
    experiment = Record.start("your_own_log", Config.checked({})).use(log.card.name)
    experiment._logs[1] = type(log)(
        log.card.model_copy(update={"items": 1}), log.items, log.categories, log.offsets, log.item_category
    )
    with pytest.raises(InputError, match="one item"):
        size_of(experiment)


CONTENT: dict[str, Any] = {
    "version": 1,
    "answer": "yes",
    "headline": "Yes.",
    "reason": "<script>alert(1)</script>",
    "questions": [{"question": "?", "answer": "yes", "evidence": "it is", "estimate": 0.02, "low": 0.01, "high": 0.03}],
    "what_to_do": {"search is the bottleneck": "take it"},
    "cautions": ["One user has 40% of the rows."],
    "facts": [{"what": "users", "on this log": "1,000"}],
    "scores": [{"model or rule": "DARE", "estimate": 0.8, "low": 0.7, "high": 0.9}],
    "cost": {"GB of weights": {"DARE": 0.004}},
    "settings": {"history": 200},
    "log": {
        "title": "a", "source": "a & b.csv", "kind": "own log", "rows_read": 1, "rows_kept": 1, "filters": ["f"],
        "found": {"separator": ","}, "checks": {"ties": 3},
    },
}  # fmt: skip


def test_the_report_is_one_page_that_needs_no_network(tmp_path: Path) -> None:
    written, data = write_report(tmp_path, CONTENT, "dare diagnose 'a b.csv'")
    text = written.read_text("utf-8")
    assert json.loads(data.read_text("utf-8"))["answer"] == "yes"
    assert "<script" not in text and "&lt;script&gt;" in text and "a &amp; b.csv" in text
    assert "http" not in text and "src=" not in text and "prefers-color-scheme:dark" in text
    assert "+0.0200 [+0.0100, +0.0300]" in text and 'role="img"' in text
    bare = {**CONTENT, "questions": [], "what_to_do": {}, "scores": [], "cost": {}}
    assert "questions, in the order" not in page(bare, "")


def test_ids_of_users_are_masked() -> None:
    card = {"checks": {"ties": 3, "largest user": "'alice' has 40 of 100 rows (40 %)"}}
    assert "alice" not in str(shown_card(card, False)) and "alice" in str(shown_card(card, True))
    assert shown_card(card, False)["checks"]["ties"] == 3


def write_noise(path: Path, users: int, clicks: int) -> None:
    """A log in which nothing can be predicted."""
    draw = np.random.default_rng(0)
    lines = ["who,what,kind"]
    for user in range(users):
        items = draw.integers(0, 3_000, clicks)
        lines += [f"u{user},p{item},{item % 20}" for item in items]
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(("users", "answer"), [(2, "cannot_tell"), (250, "stop")])
def test_the_command_stops_where_nothing_can_be_known(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, users: int, answer: str
) -> None:
    write_noise(tmp_path / "noise.csv", users, 110)
    out = tmp_path / "out"
    command = f"diagnose {tmp_path}/noise.csv --user who --item what --category kind --seeds 2 -p targets=20"
    monkeypatch.setattr("sys.argv", ["dare", *command.split(), "-p", "history=50", "--out", str(out)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr().out
    assert ended.value.code == 3, said
    report = json.loads((out / "report.json").read_text("utf-8"))
    assert report["answer"] == answer and report["version"] == 1
    assert "What was read" in said and report["headline"] in said
    assert (out / "report.html").exists() and (out / "your_own_log.ipynb").exists()


def test_a_dry_run_trains_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, own_store: Path
) -> None:
    write_noise(tmp_path / "noise.csv", 300, 60)
    monkeypatch.setattr(
        "sys.argv",
        f"dare diagnose {tmp_path}/noise.csv --user who --item what -p history=20 -p targets=12 --dry-run".split(),
    )
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr().out
    assert not ended.value.code and "minutes" in said and "300 users" in said
    assert not (own_store / "runs").exists()


def test_all_six_questions_are_answered_on_a_generated_world() -> None:
    settings = {"world_users": 40, "history": 50, "shortest_user": 60, "targets": 4, "seeds": 1, "size": 4, "top_k": 10}
    config = Config.checked(settings | {"epochs": 1})
    read = prepare_file(config)
    log = Record.start("your_own_log", config).use(read.card.name)
    learning = study.learn(log)
    evidence = study.gather(log, config)
    answer = decide(learning, evidence, config, 40)
    assert len(answer.questions) == 6 and set(evidence.search) == {4, 2}
    assert evidence.megabytes["TWIN, twice as wide"] == pytest.approx(evidence.megabytes["DARE"], rel=0.2)
    assert np.isfinite(evidence.dominance.estimate)
