"""The command line: help with examples, one sentence and status 2 for bad input."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dare_core import cli
from dare_core.training.runs import read_run


def dare(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["dare", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
        sys.exit(0)
    captured = capsys.readouterr()
    return int(stopped.value.code or 0), captured.out, captured.err


COMMANDS = [
    ("data", "prepare"), ("data", "generate"), ("data", "list"), ("data", "show"), ("data", "remove"), ("train",),
    ("sweep",), ("study",), ("book",), ("claims",), ("runs", "list"), ("runs", "show"), ("runs", "remove"),
    ("official", "score"), ("official", "import"), ("official", "export"),
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_shows_an_example(command, monkeypatch, capsys) -> None:
    status, out, _ = dare(monkeypatch, capsys, *command, "--help")
    assert status == 0 and f"Example: dare {' '.join(command)}" in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("train", "--log", "nowhere"), "nowhere"),
        (("train", "--log", "generated", "--model", "DAER"), "DARE"),
        (("train", "--log", "generated", "-p", "sise=8"), "'size'"),
        (("train", "--log", "generated", "-p", "size"), "key=value"),
        (("data", "prepare", "taobao", "nowhere.csv"), "nowhere.csv"),
        (("data", "prepare", "taobo", "nowhere.csv"), "taobao"),
        (("data", "generate", "--users", "0"), "users"),
        (("data", "show", "nothing"), "nothing"),
        (("runs", "show", "abc"), "dare runs list"),
        (("study", "convergense"), "convergence"),
        (("study", "convergence", "-p", "sedes=3"), "'seeds'"),
        (("study", "convergence", "-p", "size=big"), "size"),
        (("book", "--profile", "huge"), "standard"),
        (("book", "--chapters", "nothing"), "nothing"),
    ],
)
def test_bad_input(arguments, says, monkeypatch, capsys) -> None:
    status, out, err = dare(monkeypatch, capsys, *arguments)
    assert status == 2 and says in err and "Traceback" not in err
    assert len(err.strip().splitlines()) == 1, err


def test_train_then_runs(own_store: Path, monkeypatch, capsys) -> None:
    arguments = ("train", "--log", "generated", "--model", "TWIN", "-p", "world_users=40", "-p", "epochs=1")
    status, out, _ = dare(monkeypatch, capsys, *arguments)
    assert status == 0 and "computed" in out and "test AUC" in out
    key = out.split()[1]
    assert "read from the store" in dare(monkeypatch, capsys, *arguments)[1]
    assert key in dare(monkeypatch, capsys, "runs", "list")[1]
    assert json.loads(dare(monkeypatch, capsys, "runs", "show", key[:6])[1])["key"] == key
    with_two = dare(monkeypatch, capsys, *arguments, "--threads", "2")[1]
    assert "computed" in with_two and with_two.split()[1] != key
    damaged = read_run(with_two.split()[1]).folder / "run.json"
    damaged.write_text(damaged.read_text("utf-8").replace('"seed": 1', '"seed": 2'), "utf-8")
    listed = dare(monkeypatch, capsys, "runs", "list")[1]
    assert key in listed and f"1 damaged run left out: {with_two.split()[1]}" in listed
    assert dare(monkeypatch, capsys, "runs", "remove", with_two.split()[1])[0] == 0
    assert dare(monkeypatch, capsys, "runs", "remove", key)[0] == 0
    nothing = dare(monkeypatch, capsys, "runs", "list")[1]
    assert "No run" in nothing and str(own_store / "runs") in nothing


def test_claims_as_json(monkeypatch, capsys) -> None:
    rows = json.loads(dare(monkeypatch, capsys, "claims", "--json")[1])
    fields = {"claim", "log", "profile", "paper", "ours", "low", "high", "seeds", "verdict", "quantity"}
    assert len({row["claim"] for row in rows}) == 22
    assert all(fields <= set(row) for row in rows)
    assert "not studied yet" in dare(monkeypatch, capsys, "claims")[1]


def test_claims_of_one_log_and_one_claim(monkeypatch, capsys) -> None:
    rows = json.loads(dare(monkeypatch, capsys, "claims", "--json", "--claim", "A3")[1])
    assert rows and {row["claim"] for row in rows} == {"A3"}
    status, _, err = dare(monkeypatch, capsys, "claims", "--claim", "A9")
    assert status == 2 and "no claim 'A9': there are A1, A2" in err
    status, _, err = dare(monkeypatch, capsys, "claims", "--log", "nowhere")
    assert status == 2 and "no log 'nowhere'" in err


def test_a_world_with_settings_of_its_own(monkeypatch, capsys) -> None:
    given = ("--kind", "styled", "--users", "30", "-p", "items=500", "-p", "categories=20", "-p", "repeat_share=0.1")
    status, out, _ = dare(monkeypatch, capsys, "data", "generate", *given, "-p", 'style_kernel={"exponent": 1.2}')
    assert status == 0 and "repeat_share: 0.1;" in out and "exponent: 1.2" in out
    for wrong, said in (("interests=3", "'interests'"), ("repeat_share=2", "repeat_share"), ("style_kernel={", "JSON")):
        status, _, err = dare(monkeypatch, capsys, "data", "generate", *given, "-p", wrong)
        assert status == 2 and said in err and len(err.splitlines()) == 1


def test_claims_of_parameters_of_one_s_own(own_store: Path, monkeypatch, capsys) -> None:
    (own_store / "book" / "standard+0123abcd" / "results").mkdir(parents=True)
    assert dare(monkeypatch, capsys, "claims", "--profile", "standard+0123abcd")[0] == 0
    status, _, err = dare(monkeypatch, capsys, "claims", "--profile", "standard+4567abcd")
    assert status == 2 and "standard+0123abcd" in err


def test_data_prepare_prints_the_card(tmp_path: Path, monkeypatch, capsys) -> None:
    path = tmp_path / "log.csv"
    path.write_text("who,what\n" + "".join(f"u{i % 5},p{i}\n" for i in range(50)))
    status, out, _ = dare(
        monkeypatch, capsys, "data", "prepare", "table", str(path), "--user", "who", "--item", "what", "--name", "mine"
    )
    assert status == 0 and "rows_kept      50" in out
    assert "mine" in dare(monkeypatch, capsys, "data", "list")[1]


def test_the_installed_command_has_no_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "dare_core.cli", "data", "show", "nothing"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr
