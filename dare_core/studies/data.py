"""Data: what each log is, and whether relevance is semantic and temporal in it (claim A1, figure 8a)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import pyplot as plt

from dare_core.data.log_statistics import statistics, taobao_statistics
from dare_core.evaluation.intervals import Replicates, interval
from dare_core.evaluation.metrics import Array
from dare_core.evaluation.relevance import (
    RelevanceCounts,
    decay_slope,
    relevance_counts,
    same_minus_other,
    user_weights,
)
from dare_core.report.show import PALETTE, Shown, figure, style, table
from dare_core.studies import settings
from dare_core.studies.experiment import Experiment, Record
from dare_core.training.runs import RunStore

Config = settings.DataConfig


@dataclass
class LogView:
    """What the chapter shows of one log; of generated worlds, the first is described."""

    experiment: Experiment
    card: dict[str, Any]
    lengths: np.ndarray
    popularity: np.ndarray  # clicks of categories, most clicked first
    statistics: dict[str, Any]
    relevance: list[RelevanceCounts]  # one per seed
    replicates: dict[str, Replicates]  # of the statistics of A1


@dataclass
class Result:
    """Everything that the chapter shows."""

    record: Record
    views: list[LogView]


STATISTICS: dict[str, Callable[[Array], float]] = {"same_minus_other": same_minus_other, "decay_slope": decay_slope}
"""Statistics of mutual information (T, T, P), by their names in A1."""


def view_of(experiment: Experiment, config: Config) -> LogView:
    """Describe a log (of generated worlds the first), and count what is relevant in it with every seed."""
    counts = []
    replicates: dict[str, list[Array]] = {quantity: [] for quantity in STATISTICS}
    for seed in experiment.seeds:
        train = experiment.samples(seed)["train"]
        counts.append(relevance_counts(train, config.categories, config.positions))
        weights = user_weights(train, experiment.groups(train))
        for quantity, statistic in STATISTICS.items():
            replicates[quantity].append(counts[-1].replicates(weights, statistic))
    log = experiment.log
    return LogView(
        experiment,
        log.card.model_dump(),
        np.diff(log.offsets),
        np.sort(np.bincount(log.categories)[1:])[::-1],
        statistics(log),
        counts,
        {quantity: np.stack(rows) for quantity, rows in replicates.items()},
    )


def run(config: Config) -> Result:
    """Describe every log and judge A1 on it."""
    record = Record("data", config, RunStore())
    views = []
    for name in config.log_names:
        view = view_of(record.use(name), config)
        for quantity, replicates in view.replicates.items():
            record.judge("A1", quantity, interval(replicates), view.experiment)
        views.append(view)
    record.tables["logs"] = [card_row(view) for view in views]
    record.tables["relevance"] = [row for view in views for row in relevance_rows(view)]
    record.write()
    return Result(record, views)


def card_row(view: LogView) -> dict[str, Any]:
    """One row of the table of logs; of generated worlds it describes the first."""
    samples = view.experiment.samples(1)
    shortest = view.experiment.config.shortest_user
    return {
        "log": view.experiment.name,
        "kind": view.card["kind"],
        "worlds": view.experiment.worlds,
        "clicks": int(view.lengths.sum()),
        "users": view.card["users"],
        f"users with >= {shortest} clicks": int((view.lengths >= shortest).sum()),
        "items": view.card["items"],
        "categories": view.card["categories"],
        "training samples": samples["train"].size,
        "test samples": samples["test"].size,
    }


def relevance_rows(view: LogView) -> list[dict[str, Any]]:
    """The heat map's numbers: mutual information of same- and other-category behaviours by position, mean over
    seeds. Which categories are the most frequent, and how many there are, may vary with the seed."""
    curves = []
    for counts in view.relevance:
        information = counts.mutual_information()
        t = len(information)
        same = np.einsum("iip->p", information)
        other = (information.sum((0, 1)) - same) / max(t * (t - 1), 1)
        curves.append((same / t, other, np.full(len(same), counts.floor().mean())))
    same, other, floor = np.mean(curves, 0)
    return [
        {
            "log": view.experiment.name,
            "position": p + 1,
            "same_category_bits": float(same[p]),
            "other_category_bits": float(other[p]),
            "expected_by_chance_bits": float(floor[p]),
        }
        for p in range(len(same))
    ]


def show_cards(result: Result) -> Shown:
    """The table of logs, and each log's card under it; of generated worlds, those of the first."""
    shown = table(result.record.tables["logs"], "The logs of this book (of generated worlds, the first)")
    cards = []
    for view in result.views:
        rows = [
            {
                "field": key.replace("_", " "),
                "value": "; ".join(value) if isinstance(value, list) else str(value),
            }
            for key, value in view.card.items()
            if value and key not in ("created_with", "title")
        ]
        cards.append(table(rows, f"Data card: {view.card['title']}"))
    return Shown("\n\n".join(t.text for t in [shown, *cards]), "".join(t.html for t in [shown, *cards]))


def show_shapes(result: Result) -> Shown:
    """Lengths of users and popularity of categories; of generated worlds, in the first."""
    style()
    drawn, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4))
    parts = []
    for view, line in zip(result.views, ("-", "--", "-.", ":") * 8, strict=False):
        lengths = np.sort(view.lengths)[::-1]
        left.plot(np.arange(1, len(lengths) + 1) / len(lengths), lengths, line, label=view.experiment.name)
        share = view.popularity / view.popularity.sum()
        right.plot(np.arange(1, len(share) + 1), share, line, label=view.experiment.name)
        parts.append(
            f"{view.experiment.name}: median user {int(np.median(lengths))} clicks, "
            f"most clicked category {share[0]:.1%} of clicks"
        )
    left.set(xlabel="share of users", ylabel="clicks of the user", yscale="log", title="User lengths")
    right.set(xlabel="category rank", ylabel="share of clicks", xscale="log", yscale="log", title="Categories")
    right.legend()
    return figure(drawn, "User lengths and category popularity on logarithmic scales. " + "; ".join(parts) + ".")


def show_match(result: Result) -> Shown:
    """How near each log is to the Taobao head, in the statistics that calibrated the generated world."""
    rows = [
        {
            "statistic": name,
            "Taobao head": published,
            **{view.experiment.name: view.statistics[name] for view in result.views},
        }
        for name, published in taobao_statistics()["statistics"].items()
    ]
    return table(rows, "The Taobao head (published log, aggregated statistics) beside the logs of this book")


def show_relevance(result: Result) -> Shown:
    """Figure 8a: mutual information by behaviour category and position, for the most frequent target (seed 1)."""
    style()
    count = len(result.views)
    drawn, axes = plt.subplots(count, 2, figsize=(9.5, 3.5 * count), squeeze=False, width_ratios=(1.5, 1))
    parts = []
    for (heat, line), view in zip(axes, result.views, strict=True):
        counts = view.relevance[0]
        first = 1e3 * counts.mutual_information()[0]
        image = heat.imshow(first, aspect="auto", cmap="viridis", interpolation="nearest")
        drawn.colorbar(image, ax=heat, label="10⁻³ bit")
        heat.set(
            title=f"{view.experiment.name}: target category {counts.categories[0]} (row 0)",
            xlabel="position (1 is the newest)",
            ylabel="behaviour category, by frequency",
        )
        heat.set_xticks(np.arange(0, counts.positions, 10), np.arange(1, counts.positions + 1, 10))
        heat.grid(False)
        rows = relevance_rows(view)
        positions = [r["position"] for r in rows]
        same = [r["same_category_bits"] for r in rows]
        line.plot(positions, same, color=PALETTE["attention"], label="same category")
        line.plot(
            positions, [r["other_category_bits"] for r in rows], color=PALETTE["representation"], ls="--",
            label="other categories",
        )  # fmt: skip
        line.plot(positions, [r["expected_by_chance_bits"] for r in rows], "k:", label="by chance")
        line.set(title="mean over targets", xlabel="position", ylabel="bits", xscale="log", yscale="log")
        line.legend(fontsize=8)
        parts.append(
            f"{view.experiment.name}: same-category information falls from {1e3 * same[0]:.2f} at position 1 "
            f"to {1e3 * same[-1]:.2f} thousandths of a bit at position {positions[-1]}"
        )
    return figure(drawn, "Mutual information of behaviours with the label. " + "; ".join(parts) + ".")
