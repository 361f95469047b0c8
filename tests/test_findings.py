"""The bullets of README.md: what a ledger says, and nothing else."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from dare_core.report.claims import load_claims
from dare_core.report.verdict import LedgerRow

BOOK = Path(__file__).parent.parent / "book"


@pytest.fixture
def findings() -> ModuleType:
    spec = importlib.util.spec_from_file_location("findings", BOOK / "findings.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def row(claim: str, log: str, primary: bool = True) -> LedgerRow:
    numbers = {"paper": 5.0, "ours": 7.194, "low": 4.99, "high": 10.42}
    return LedgerRow(claim=claim, quantity="norm_ratio", primary=primary, log=log, verdict="holds", **numbers)


def test_bullets_are_the_primary_quantities(findings: ModuleType) -> None:
    rows = [
        row("G1", "generated"),
        row("G1", "complete_journey"),
        row("G1", "taobao", primary=False),
        LedgerRow(claim="G2", quantity="negative_cosine_share", primary=True, verdict="not studied yet"),
    ]
    lines = findings.bullets(rows, load_claims())
    text = " ".join(line.strip() for line in lines)
    gradients = "- **Gradients.**" + text.partition("- **Gradients.**")[2].partition(" - ")[0]
    assert gradients == (
        "- **Gradients.** The gradients into shared embeddings are dominated by representation (G1): **holds** on the "
        "generated log (ratio 7.19 [4.99, 10.4]; paper 5), **holds** on Complete Journey (ratio 7.19 [4.99, 10.4]; "
        "paper 5). Not judged: G2."
    )
    assert sum(line.startswith("- ") for line in lines) == 5


def test_dare_minus_twin_comes_before_the_primary_quantity_of_o1(findings: ModuleType) -> None:
    small, large = (
        row("O1", log, primary=False).model_copy(update={"quantity": "dare_minus_twin", "training_samples": samples})
        for log, samples in (("complete_journey", 100_000), ("world_100m", 4_902_000))
    )
    text = " ".join(line.strip() for line in findings.bullets([small, large], load_claims()))
    assert "(O1): **holds** on World 100M (AUC 7.19 [4.99, 10.4]; paper 5), **holds** on Complete Journey" in text
    best = row("O1", "generated").model_copy(update={"quantity": "dare_minus_best_other"})
    text = " ".join(line.strip() for line in findings.bullets([small, large, best], load_claims()))
    first, second = text.index("**holds** on World 100M"), text.index("(O1): **holds** on the generated log")
    assert first < second


def test_a_block_is_filled_and_nothing_else(findings: ModuleType) -> None:
    text = "before\n<!-- findings -->\nformer text\n<!-- /findings -->\nafter\n"
    filled = findings.fill(text, [row("G1", "generated")], load_claims())
    assert (
        "- **Gradients.**" in filled
        and filled.startswith("before\n<!-- findings -->\n- **Acc")
        and "former" not in filled
    )
    assert filled.endswith("\n<!-- /findings -->\nafter\n")
    assert findings.fill(filled, [row("G1", "generated")], load_claims()) == filled
    with pytest.raises(ValueError, match="no block"):
        findings.fill("nothing", [], load_claims())


def test_every_claim_of_a_bullet_exists_and_the_readme_has_a_block(findings: ModuleType) -> None:
    assert {name for names in findings.BULLETS.values() for name in names} <= set(load_claims())
    assert findings.BLOCK.search(findings.README.read_text("utf-8"))
