"""The landing page and the page of all claims: they say what the ledger says, and every number is the ledger's."""

import csv
import html
import json
import re
from pathlib import Path

import pytest

from dare_core import chapters
from dare_core.chapters import row_commands
from dare_core.files import project_root, write_json
from dare_core.report.claims import load_claims
from dare_core.report.ledger import number
from dare_core.report.pages import (
    ANSWERS,
    CATCHES,
    GROUPS,
    JUDGED,
    LEAD,
    claims_table,
    landing,
    log_title,
    write_downloads,
)
from dare_core.report.show import MARKS
from dare_core.report.verdict import LedgerRow, Verdict

CLAIMS = load_claims()
LOGS = {"complete_journey": 96_672, "world_100m": 4_912_345, "generated": 119_700}


def row(claim: str, quantity: str, log: str, verdict: Verdict, ours: float | None = 0.0213) -> LedgerRow:
    """A measured row, or one without a number."""
    entry = CLAIMS[claim].of(quantity)
    numbers = {} if ours is None else {"ours": ours, "low": ours - 0.0061, "high": ours + 0.0072}
    return LedgerRow(
        claim=claim,
        quantity=quantity,
        primary=entry.primary,
        log=log,
        kind="published log" if log == "complete_journey" else "generated log",
        training_samples=LOGS[log],
        paper=entry.paper,
        verdict=verdict,
        competence=0.9213,
        embedding_size=16,
        profile="standard",
        **numbers,
    )


def ledger_of(verdict: Verdict, ours: float | None = 0.0213) -> list[LedgerRow]:
    """Every quantity on every log with one verdict; of what cannot be tested, a row without a log."""
    rows = []
    for claim in CLAIMS.values():
        for quantity in claim.quantities:
            if claim.untestable:
                line = {"claim": claim.id, "quantity": quantity.quantity, "primary": quantity.primary}
                rows.append(LedgerRow(**line, paper=quantity.paper, verdict="cannot be tested here"))
            else:
                rows += [row(claim.id, quantity.quantity, log, verdict, ours) for log in LOGS]
    return rows


def words(page: str) -> str:
    """What a page says, to the eye or to a screen reader, without ticks of axes."""
    page = re.sub(r'<text class="tick"[^>]*>-?[\d.e-]+</text>', "", page)
    labels = " ".join(re.findall(r'(?:aria-label|title)="([^"]*)"', page))
    return html.unescape(" ".join(f"{re.sub('<[^>]+>', ' ', page)} {labels}".split()))


def allowed(rows: list[LedgerRow]) -> set[str]:
    """Numbers that a page may show: the ledger's, counts of its rows, and the level of intervals."""
    found = {"95"} | {str(count) for count in range(1, len(LOGS) + 4)}
    for r in rows:
        found |= {number(v).lstrip("-") for v in (r.paper, r.ours, r.low, r.high, r.competence)}
        found |= {f"{r.training_samples or 0:,}"}
    return found


@pytest.mark.parametrize(
    ("verdict", "ours", "answer"),
    [
        ("holds", 0.0213, "Yes, on the largest log. World 100M (generated log, 4,912,345 training samples)"),
        ("contradicted", -0.0213, "No: on the largest log one table is better."),
        ("undecided", 0.0021, "The largest log cannot tell."),
        ("not studied yet", None, "Not studied yet. No log has a number"),
    ],
)
def test_the_answer_follows_from_the_ledger(verdict: Verdict, ours: float | None, answer: str) -> None:
    rows = ledger_of(verdict, ours)
    page = landing(rows, CLAIMS)
    assert answer in page.text and page.text.startswith(answer.split(".")[0])
    others = [text for name, text in ANSWERS.items() if name != verdict]
    assert not any(text in page.text for text in others)
    assert len(page.text.split()) <= 70
    titles = {log_title(log) for log in LOGS}
    said = words(page.html)
    for name in [*titles, *CLAIMS]:
        said = said.replace(name, "")
    typed = set(re.findall(r"(?<![\w.])\d[\d,.]*\d|(?<![\w.])\d", said))
    assert typed <= allowed(rows), typed - allowed(rows)
    if ours is not None:
        assert number(ours) in page.text and f"Other generated logs: {verdict} (1)" in page.text
        assert f"Published logs: {verdict} (1)" in page.text
        for _, _, sentence, ends in CATCHES.values():
            assert sentence.format(ends[JUDGED.index(verdict)])[1:] in words(page.html)
        order = [page.html.index(f">{log_title(log)}</text>") for log in sorted(LOGS, key=lambda log: -LOGS[log])]
        assert order == sorted(order), "most training samples first"
    else:
        assert "nothing" not in said and not re.search(r"\d\.\d", said)


def test_a_small_log_that_holds_does_not_answer_for_the_largest() -> None:
    verdicts: dict[str, Verdict] = {"world_100m": "undecided", "generated": "holds", "complete_journey": "holds"}
    text = landing([row(*LEAD, log, verdict) for log, verdict in verdicts.items()], CLAIMS).text
    assert text.startswith(ANSWERS["undecided"]) and "logs: holds (1). Published logs: holds (1)" in text


def test_an_empty_ledger_has_a_page() -> None:
    assert landing([], CLAIMS).text.startswith("Not studied yet.")


def test_every_cell_of_the_map_has_its_verdict_and_number_for_a_screen_reader() -> None:
    rows = ledger_of("holds")
    rows = [r for r in rows if (r.claim, r.log) != ("A3", "generated")]
    page = landing(rows, CLAIMS).html
    cells = re.findall(r'<td class="judged (\S+)"><a href="../book/claims.html#(\w+)">(.*?)</a></td>', page)
    primary = [r for r in rows if r.primary and r.log]
    assert len(cells) == len(primary)
    spoken = [re.search(r'<span class="unseen">(.*?)</span>', inner)[1] for _, _, inner in cells]  # type: ignore[index]
    for r in primary:
        start = f"{r.claim} on {log_title(r.log)}, holds: {number(r.ours)} [{number(r.low)}, {number(r.high)}]"
        assert sum(text.startswith(start) for text in spoken) == 1
    assert all(f'<span aria-hidden="true">{MARKS["holds"]}</span>' in inner for _, _, inner in cells)
    assert page.count("not run</span>") - 1 == 1, "A3 on the generated log, and the key"
    assert {claim.id[0] for claim in CLAIMS.values() if not claim.untestable} <= set(GROUPS)


def test_the_page_of_claims_has_every_row_and_an_anchor_for_each_claim() -> None:
    rows = ledger_of("holds, smaller") + [row(*LEAD, "generated", "undecided", None)]
    page = claims_table(rows, CLAIMS, [f"dare study {r.claim}" for r in rows])
    assert page.count("<tr ") == len(rows) and page.count("<details>") == len(rows)
    assert re.findall(r'<tr id="(\w+)"', page) == list(CLAIMS)
    assert page.count("<th scope") <= 7 and page.count("dare study O1</code>") == sum(r.claim == "O1" for r in rows)
    for name in MARKS:
        assert f"<option>{name}</option>" in page
    first = page[page.index('<tr id="O1"') :]
    assert "counts for the claim" in first[: first.index("</tr>")], "the primary quantity comes first"


def test_downloads_are_the_ledger(tmp_path: Path) -> None:
    rows = ledger_of("undecided") + [row(*LEAD, "generated", "not studied yet", None)]
    write_downloads(rows, tmp_path)
    assert [LedgerRow.model_validate(line) for line in json.loads((tmp_path / "claims.json").read_text())] == rows
    with (tmp_path / "claims.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["quantity"] for line in lines] == [r.quantity for r in rows]
    assert list(lines[0]) == list(LedgerRow.model_fields) and float(lines[0]["ours"]) == rows[0].ours


def test_a_row_has_the_command_that_computed_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    far, near = row(*LEAD, "world_100m", "holds"), row(*LEAD, "generated", "holds")
    far = far.model_copy(update={"profile": "full+1a2b3c4d"})
    monkeypatch.setattr(chapters, "stored_folders", lambda: [tmp_path / "world_100m"])
    config = {
        "profile": far.profile,
        **chapters.profile_parameters("overall", "full"),
        "logs": "world_100m",
        "seeds": 3,
    }
    write_json(tmp_path / "world_100m" / "overall.json", {"rows": [far.model_dump()], "config": config})
    plain = {"profile": "standard", **chapters.profile_parameters("overall", "standard")}
    write_json(tmp_path / "overall.json", {"rows": [near.model_dump()], "config": plain})
    other, none = row("D2", "dare_long_minus_short", "generated", "not studied yet", None), ledger_of("holds")[-1]
    assert row_commands(tmp_path, [far, near, other, none]) == [
        "dare study overall --profile full -p logs=world_100m -p seeds=3",
        "dare study overall --profile standard",
        "dare study retrieval_number --profile full",
        "",
    ]


def test_marks_can_be_read_on_their_ground_in_both_modes() -> None:
    """Contrast of at least 4.5 (WCAG 2, AA)."""
    css = (project_root() / "book" / "_static" / "pages.css").read_text("utf-8")
    modes = [
        dict(re.findall(r"--([\w-]+): (#\w{6});", block)) for block in re.findall(r"^\S.*?\{(.*?)^\}", css, re.M | re.S)
    ]
    light, dark = (mode for mode in modes if "ok" in mode)

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    for mode in (light, dark):
        pairs = [(kind, f"{kind}-ground") for kind in ("ok", "no", "un")] + [
            (kind, "on") for kind in ("att", "rep", "both")
        ]
        for one, other in pairs:
            low, high = sorted((luminance(mode[one]), luminance(mode[other])))
            assert (high + 0.05) / (low + 0.05) >= 4.5, (one, other)
