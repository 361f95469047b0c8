"""DARE as a model of FuxiCTR's LongCTR family: python examples/fuxictr_dare.py (needs the extra `fuxictr`)

FuxiCTR (https://github.com/reczoo/FuxiCTR) has SIM, ETA, SDIM, TWIN and MIRRN under `model_zoo/LongCTR`. Their loader
gives batches of three parts, which this model takes too:

- features of the sample by name (B,), the label among them;
- features of items by name (B (L + 1),): for every sample L behaviours, the newest last, and then the target;
- a mask (B, L), 0 at padding, which comes before the behaviours.

Features of items have `source: item` in the feature map; DARE takes two of them, the item's id and its category. Id 0
is padding. The position in the history needs no feature.
"""

import tempfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fuxictr.features import FeatureMap
from fuxictr.pytorch.models import BaseModel
from torch import Tensor
from torch.utils.data import DataLoader

import dare_core

Inputs = tuple[dict[str, Tensor], dict[str, Tensor], Tensor]
USERS, ITEMS, CATEGORIES, CLICKS, LONGEST = 300, 1_000, 30, 60, 40


class DARE(BaseModel):
    """DARE with the interface of LongCTR's models, and their names of parameters where they have one.

    Parameters
    ----------
    feature_map : FeatureMap
        Holds `item_field` and `category_field`, with their `vocab_size` (padding included).
    embedding_dim, attention_dim : int
        Embedding dimension per field of representation and of attention (as `embedding_dim` where left out).
    topk, max_len : int
        Behaviours that the search retrieves, and most behaviours per history.
    kwargs : Any
        As for every model of FuxiCTR: `optimizer`, `loss`, `metrics`, `model_root`, `verbose` and so on.
    """

    def __init__(
        self,
        feature_map: FeatureMap,
        model_id: str = "DARE",
        gpu: int = -1,
        learning_rate: float = 1e-2,
        embedding_dim: int = 16,
        attention_dim: int | None = None,
        topk: int = 20,
        max_len: int = 50,
        item_field: str = "item_id",
        category_field: str = "category_id",
        **kwargs: Any,
    ) -> None:
        super().__init__(feature_map, model_id=model_id, gpu=gpu, **kwargs)
        self.fields = item_field, category_field
        items, categories = (feature_map.features[field]["vocab_size"] - 1 for field in self.fields)
        self.model = dare_core.DARE(items, categories, max_len, embedding_dim, attention_dim, topk)
        self.compile(kwargs["optimizer"], kwargs["loss"], learning_rate)  # `reset_parameters` would redraw the heads
        self.model_to_device()

    def forward(self, inputs: Inputs) -> dict[str, Tensor]:
        """`y_pred` (B, 1) and, in training, that of the auxiliary head: probabilities of a click."""
        _, item_features, mask = inputs
        mask = mask.to(self.device) > 0  # (B, L)
        items, categories = (
            item_features[field].to(self.device).long().view(len(mask), -1) for field in self.fields
        )  # (B, L + 1)
        ids = items[:, -1], categories[:, -1], items[:, :-1], categories[:, :-1]
        logits, auxiliary = self.model.forward_with_auxiliary(*(tensor.contiguous() for tensor in ids), mask)
        found = {"y_pred": logits} if auxiliary is None else {"y_pred": logits, "auxiliary": auxiliary}
        return {name: value.sigmoid().unsqueeze(1) for name, value in found.items()}

    def add_loss(self, return_dict: dict[str, Tensor], y_true: Tensor) -> Tensor:
        """The loss of both heads."""
        return sum(self.loss_fn(predicted, y_true, reduction="mean") for predicted in return_dict.values())

    def get_labels(self, inputs: Inputs) -> Tensor:
        """Labels (B, 1)."""
        return super().get_labels(inputs[0])

    def get_group_id(self, inputs: Inputs) -> Tensor:
        """Groups of samples (B,), for GAUC."""
        return inputs[0][self.feature_map.group_id]


class GeneratedLog:
    """A small log in which the next click tends to stay in the category of a recent one, and its samples."""

    def __init__(self, seed: int = 1) -> None:
        rng = np.random.default_rng(seed)
        self.category = np.concatenate([[0], rng.integers(1, CATEGORIES + 1, ITEMS)])  # of every item; 0 is padding
        members = [np.flatnonzero(self.category == c) for c in range(CATEGORIES + 1)]
        self.clicks = rng.integers(1, ITEMS + 1, (USERS, CLICKS))
        for user in self.clicks:
            for t in range(5, CLICKS):
                if rng.random() < 0.7:
                    user[t] = rng.choice(members[self.category[user[t - rng.integers(1, 6)]]])
        self.negatives = rng.integers(1, ITEMS + 1, (USERS, CLICKS))

    def feature_map(self, folder: Path) -> FeatureMap:
        """Two features of items, and the user, which no model embeds."""
        features = FeatureMap("generated", str(folder))
        item = {"source": "item", "type": "categorical", "padding_idx": 0}
        features.features = OrderedDict(
            user_index={"type": "meta"},
            item_id={**item, "vocab_size": ITEMS + 1},
            category_id={**item, "vocab_size": CATEGORIES + 1},
        )
        features.labels = ["label"]
        features.num_fields = features.get_num_fields()
        features.set_column_index()
        return features

    def loader(self, start: int, stop: int, batch_size: int = 128, shuffle: bool = False) -> DataLoader:
        """Batches of the clicks `start` to `stop` of all users, each with one item that was not clicked."""
        samples = [(user, t, label) for user in range(USERS) for t in range(start, stop) for label in (0, 1)]
        generator = torch.Generator().manual_seed(1)
        return DataLoader(samples, batch_size, shuffle, collate_fn=self.collate, generator=generator)

    def collate(self, samples: list[tuple[int, int, int]]) -> Inputs:
        """The three parts of a batch."""
        user, t, label = np.array(samples).T
        columns = t[:, None] + np.arange(-LONGEST, 0)  # (B, L)
        behaviours = np.where(columns < 0, 0, self.clicks[user[:, None], columns])
        target = np.where(label == 1, self.clicks[user, t], self.negatives[user, t])
        items = np.concatenate([behaviours, target[:, None]], 1).ravel()  # (B (L + 1),)
        sample_features = {"user_index": torch.from_numpy(user), "label": torch.from_numpy(label)}
        item_features = {"item_id": torch.from_numpy(items), "category_id": torch.from_numpy(self.category[items])}
        return sample_features, item_features, torch.from_numpy(behaviours > 0).float()


def main(epochs: int = 2) -> dict[str, float]:
    """Train with FuxiCTR's loop; returns its metrics on test samples."""
    torch.manual_seed(1)
    log = GeneratedLog()
    with tempfile.TemporaryDirectory() as folder:
        settings = {"optimizer": "adam", "loss": "binary_crossentropy", "metrics": ["AUC", "logloss"], "verbose": 0}
        model = DARE(log.feature_map(Path(folder)), max_len=LONGEST, topk=10, model_root=folder, **settings)
        Path(model.model_dir).mkdir()  # where FuxiCTR keeps the best weights
        train, validation = log.loader(30, CLICKS - 2, shuffle=True), log.loader(CLICKS - 2, CLICKS - 1)
        model.fit(train, epochs=epochs, validation_data=validation)
        return model.evaluate(log.loader(CLICKS - 1, CLICKS))


if __name__ == "__main__":
    print(", ".join(f"test {name} {value:.3f}" for name, value in main().items()))
