"""What a forward pass in bfloat16 does to DARE's test AUC and to the speed of training.

    .venv/bin/python benchmarks/mixed_precision.py

Both default logs, the standard profile's settings; each seed is trained in float32 and in bfloat16 in turn, from the
same initial weights on the same samples. With `--device cuda` on a GPU. The result is written to
`benchmarks/results/mixed_precision.json`, which the Reproducibility chapter shows.
"""

import argparse
from pathlib import Path

from common import figure_line, write_figures

from dare_core.chapters import chapter_parameters
from dare_core.evaluation.metrics import auc
from dare_core.models.zoo import build_model
from dare_core.studies.experiment import Experiment
from dare_core.studies.settings import StudyConfig
from dare_core.training.loop import train
from dare_core.training.runs import RunStore, counts_of

OUT = Path(__file__).parent / "results" / "mixed_precision.json"
PRECISIONS = ("float32", "bfloat16")


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    settings = chapter_parameters("convergence", "standard", {})
    config = StudyConfig.checked({key: value for key, value in settings.items() if key in StudyConfig.model_fields})
    store = RunStore()
    figures = []
    for name in config.log_names:
        experiment = Experiment(config, name, store)
        found: dict[str, dict[str, list[float]]] = {p: {"AUC": [], "speed": []} for p in PRECISIONS}
        for seed in range(1, options.seeds + 1):
            for precision in PRECISIONS:
                run_config = experiment.run_config("DARE", seed, precision=precision)
                splits = store.samples(run_config)
                counts = counts_of(experiment.log_of(seed), run_config.samples)
                trained = train(
                    run_config,
                    splits,
                    lambda run_config=run_config, counts=counts, seed=seed: build_model(
                        run_config.model, counts, run_config.training, seed
                    ),
                    device=options.device,
                )
                found[precision]["AUC"].append(auc(splits["test"].labels, trained.test_probability))
                found[precision]["speed"].append(trained.samples_per_second)
        for precision in PRECISIONS:
            figures.append(figure_line(f"{name}, {precision}: test AUC", found[precision]["AUC"]))
            figures.append(figure_line(f"{name}, {precision}: samples/s", found[precision]["speed"]))
        full, mixed = (found[precision] for precision in PRECISIONS)
        changes = [m - f for f, m in zip(full["AUC"], mixed["AUC"], strict=True)]
        ratios = [m / f for f, m in zip(full["speed"], mixed["speed"], strict=True)]
        figures.append(figure_line(f"{name}: bfloat16 minus float32, test AUC", changes))
        figures.append(figure_line(f"{name}: bfloat16 over float32, samples/s", ratios))
    write_figures(
        OUT, f"python benchmarks/mixed_precision.py{'' if options.device == 'cpu' else ' --device cuda'}", figures
    )


if __name__ == "__main__":
    main()
