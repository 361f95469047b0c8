"""Deliberate mistakes, one at a time: each must fail a test (`make mutants`; outside the time of `make test`).

A mistake is a replacement in one file of a copy of the project, and the tests that should notice it. One that no test
notices is a hole in the net, one whose text is no longer found must be written anew: both end in exit status 1.
Names of files or parts of a mistake's description restrict the run: `python tests/mutants.py metrics interval`.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("dare_core", "tests", "book", "notebooks", "pyproject.toml", "requirements.lock", "README.md")


@dataclass(frozen=True)
class Mutant:
    """A deliberate mistake."""

    what: str
    file: str
    old: str
    new: str
    tests: str  # names of test files, separated by spaces


MUTANTS = [
    Mutant(
        "accuracy's threshold at 0",
        "dare_core/evaluation/metrics.py",
        "(probability > 0.5) == (labels > 0)",
        "(probability > 0.0) == (labels > 0)",
        "metrics",
    ),
    Mutant(
        "ties count nothing in the AUC",
        "dare_core/evaluation/metrics.py",
        "below -= negative / 2",
        "below -= negative",
        "metrics intervals",
    ),
    Mutant(
        "GAUC weighs groups alike",
        "dare_core/evaluation/metrics.py",
        "np.average(within, weights=n)",
        "np.mean(within)",
        "metrics",
    ),
    Mutant(
        "GAUC keeps groups of one class",
        "dare_core/evaluation/metrics.py",
        '(pl.col("positives") > 0) & (pl.col("positives") < pl.col("n"))',
        'pl.col("positives") > 0',
        "metrics",
    ),
    Mutant(
        "mutual information in nats",
        "dare_core/evaluation/metrics.py",
        "math.log2(table",
        "math.log(table",
        "metrics studies",
    ),
    Mutant("the interval's level", "dare_core/evaluation/intervals.py", "LEVEL = 0.95", "LEVEL = 0.90", "intervals"),
    Mutant(
        "a lower bound at 5 %",
        "dare_core/evaluation/intervals.py",
        "return Interval(estimate, estimate - margin, estimate + margin, error, freedom, seeds, level)",
        "return Interval(estimate, estimate - 0.84 * margin, estimate + margin, error, freedom, seeds, level)",
        "intervals",
    ),
    Mutant(
        "the variance over seeds without Bessel's correction",
        "dare_core/evaluation/intervals.py",
        "own.var(ddof=1)",
        "own.var(ddof=0)",
        "intervals",
    ),
    Mutant(
        "the best of several chosen for its interval, uncorrected",
        "dare_core/evaluation/intervals.py",
        "    corrected = holm(comparisons)\n",
        "    corrected = plain\n",
        "intervals",
    ),
    Mutant(
        "better than one is enough for better than each",
        "dare_core/evaluation/intervals.py",
        "low = min(part.low for part in plain.values())",
        "low = max(part.low for part in plain.values())",
        "intervals",
    ),
    Mutant(
        "Holm without correction",
        "dare_core/evaluation/intervals.py",
        "interval(comparisons[name], 1 - (1 - LEVEL) / left)",
        "interval(comparisons[name], LEVEL)",
        "intervals",
    ),
    Mutant(
        "the claimed side is the other",
        "dare_core/report/verdict.py",
        '"other" if high < 0 else "claimed" if low > -quantity.tolerance',
        '"claimed" if high < 0 else "other" if low > -quantity.tolerance',
        "claims",
    ),
    Mutant(
        "a quarter of the effect is enough",
        "dare_core/report/claims.py",
        "return effect / 2 if",
        "return effect / 4 if",
        "claims",
    ),
    Mutant(
        "competence of .6 is enough",
        "dare_core/studies/experiment.py",
        "LEARNED = 0.9",
        "LEARNED = 0.6",
        "studies",
    ),
    Mutant(
        "models that have not learned are judged",
        "dare_core/report/verdict.py",
        'return self.not_learned if claim.needs_competence else ""',
        'return ""',
        "claims studies",
    ),
    Mutant(
        "one world for all seeds",
        "dare_core/studies/settings.py",
        '"world_seed": self.world_seed + seed - 1}',
        '"world_seed": self.world_seed}',
        "studies",
    ),
    Mutant(
        "the rule is chosen on the test samples",
        "dare_core/studies/experiment.py",
        'key=lambda name: mean_auc("validation", name)',
        'key=lambda name: mean_auc("test", name)',
        "studies",
    ),
    Mutant(
        "the recipe's batch size",
        "dare_core/training/loop.py",
        "STEPS_AN_EPOCH, FEWEST_SAMPLES, MOST_SAMPLES = 2_000, 32, 2_048",
        "STEPS_AN_EPOCH, FEWEST_SAMPLES, MOST_SAMPLES = 200, 32, 2_048",
        "training",
    ),
    Mutant(
        "the seed does not move the negatives",
        "dare_core/training/loop.py",
        "return weights, weights, config.seed",
        "return weights, weights, 0",
        "training",
    ),
    Mutant(
        "evaluation in training mode",
        "dare_core/training/loop.py",
        "model.train(published)",
        "model.train(True)",
        "training official",
    ),
    Mutant(
        "the last weights instead of the best",
        "dare_core/training/loop.py",
        "return max(self.history, key=lambda line: line.auc)",
        "return self.history[-1]",
        "training",
    ),
    Mutant(
        "validation is tested",
        "dare_core/data/samples.py",
        '("test", test, log.offsets[1:])',
        '("test", test, log.offsets[1:] - 1)',
        "samples",
    ),
    Mutant(
        "a first click's missing past is forgotten",
        "dare_core/data/styled.py",
        "rest += shares[level] * (1.0 - known[level])",
        "rest += 0.0 * known[level]",
        "styled",
    ),
    Mutant(
        "single samples have swapped labels",
        "dare_core/models/click_model.py",
        "torch.where(clicked, log_probability[..., 0], log_probability[..., 1])",
        "torch.where(clicked, log_probability[..., 1], log_probability[..., 0])",
        "training",
    ),
    Mutant(
        "the target leaks into the history",
        "dare_core/data/samples.py",
        "torch.arange(-self.history, 0, device",
        "torch.arange(-self.history + 1, 1, device",
        "samples",
    ),
    Mutant(
        "the neighbour's clicks fill the history",
        "dare_core/data/samples.py",
        "padding = row < self.start[index].unsqueeze(1)",
        "padding = row < 0",
        "samples",
    ),
    Mutant(
        "negatives may be clicked items",
        "dare_core/data/samples.py",
        'unclicked = log if config.negative_rule == "unclicked" else None',
        "unclicked = None",
        "samples",
    ),
    Mutant(
        "position scaled with the content",
        "dare_core/models/click_model.py",
        'k["position"].mT / math.sqrt(q["position"].shape[-1])',
        'k["position"].mT / math.sqrt(2 * q["position"].shape[-1])',
        "official",
    ),
    Mutant(
        "attention and representation share DARE's table",
        "dare_core/models/click_model.py",
        "{role: role[0] for role in ROLES}",
        'dict.fromkeys(ROLES, "attention")',
        "models official",
    ),
    Mutant(
        "the product left out of the head",
        "dare_core/models/click_model.py",
        '"target_aware": [v, h, v * h]',
        '"target_aware": [v, h, h]',
        "official models",
    ),
    Mutant(
        "the auxiliary loss counts nothing",
        "dare_core/training/loop.py",
        "loss = main + auxiliary",
        "loss = main + 0 * auxiliary",
        "training",
    ),
    Mutant(
        "the gradient of the pooled history without the softmax's mean",
        "dare_core/models/kernels/fused.py",
        "of_scores[n] += weights[n] * (slopes[n] - total)",
        "of_scores[n] += weights[n] * slopes[n]",
        "fused plain_step",
    ),
    Mutant(
        "a changed run.json is read",
        "dare_core/training/store.py",
        "if record.sha256 != with_own_hash(content, hashes):",
        "if False:",
        "runs",
    ),
    Mutant(
        "threads left out of a run's key",
        "dare_core/training/store.py",
        '"threads": environment["threads"], ',
        "",
        "runs",
    ),
    Mutant(
        "the best setting of another log",
        "dare_core/studies/scores.py",
        "return [row for row in rows if all(row.get(key) == value for key, value in asked.items())]",
        "return list(rows)",
        "sweeps",
    ),
    Mutant(
        "the penalty halved",
        "dare_core/training/optimizers.py",
        "2 * config.l2",
        "config.l2",
        "training",
    ),
    Mutant(
        "swapped roles in the gradient record",
        "dare_core/training/gradients.py",
        'representation = self.table_gradient("representation", field)',
        'representation = self.table_gradient("attention", field)',
        "gradients",
    ),
]


def copy_of(mutant: Mutant, folder: Path) -> None:
    """The project with the mistake. Raises ValueError where its text is not found exactly once."""
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / part)
    path = folder / mutant.file
    text = path.read_text("utf-8")
    if text.count(mutant.old) != 1:
        raise ValueError(f"{mutant.file}: {text.count(mutant.old)} places read {mutant.old!r}")
    path.write_text(text.replace(mutant.old, mutant.new), "utf-8")


def noticed(mutant: Mutant) -> str:
    """How a mistake fared: `noticed`, `NOT NOTICED`, or why it could not be made."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        try:
            copy_of(mutant, folder)
        except (OSError, ValueError) as error:
            return f"CANNOT BE MADE: {error}"
        files = [f"tests/test_{name}.py" for name in mutant.tests.split()]
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *files]
        alone = {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        environment = os.environ | alone | {"PYTHONPATH": str(folder), "NUMBA_CACHE_DIR": str(folder / "numba")}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode == 1:  # tests were run, and some failed
        return "noticed"
    return "NOT NOTICED" if done.returncode == 0 else f"CANNOT BE RUN: {done.stdout[-300:]}"


def main() -> int:
    """Try every mistake, or those asked for; the exit status is 1 if one was not noticed."""
    asked = [m for m in MUTANTS if not sys.argv[1:] or any(word in f"{m.what} {m.file}" for word in sys.argv[1:])]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(tqdm(pool.map(noticed, asked), total=len(asked), unit=" mistakes", disable=None))
    for mutant, result in zip(asked, found, strict=True):
        print(f"{result}: {mutant.what} ({mutant.file})")
    holes = sum(result != "noticed" for result in found)
    print(f"{len(asked)} mistakes, {len(asked) - holes} noticed")
    return 1 if holes else 0


if __name__ == "__main__":
    sys.exit(main())
