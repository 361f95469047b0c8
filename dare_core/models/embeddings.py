"""Embedding tables, and which of them serves which role.

A behaviour and a target each need an *attention* and a *representation* embedding, so there are four roles. A scheme
assigns a set of tables (item, category, position) to every role; the assignments of the paper are in `click_model`.

Training hooks in here: it may read the rows of a batch in place of a table (`Excerpt`), keep roles that share a
table apart to observe their gradients (`EmbeddingScheme.apart`), or weigh these gradients (`equalised`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from dare_core.data.samples import Batch, Side
from dare_core.models.kernels.lookup import lookup

Module = Literal["attention", "representation"]
Role = tuple[Module, Side]
FIELDS = ("item", "category", "position")
SIDES: tuple[Side, ...] = ("target", "behaviour")
ROLES: tuple[Role, ...] = (
    ("attention", "target"),
    ("attention", "behaviour"),
    ("representation", "target"),
    ("representation", "behaviour"),
)
Rows = dict[str, Tensor]
"""Embeddings by field: (H, C, d) for targets, (H, N, d) for behaviours; positions are (1, d) and (N, d),
because every target has position 0 and column j of every history the same position."""
Sizes = Mapping[str, int]
"""Embedding size by field."""


@dataclass(frozen=True)
class Counts:
    """Rows of the embedding tables without the padding row: items, categories, longest history."""

    items: int
    categories: int
    history: int


@dataclass(frozen=True)
class Vectors:
    """Embeddings of a batch for the four roles.

    `rows` are those read from the tables, *before* any map. Where the scheme keeps its roles `apart`, each is its own
    node of the autograd graph even where roles share a table: the gradient that arrives there is the role's own part
    of the table's gradient. `used` are the vectors that the model computes with: the same, or mapped.
    """

    rows: dict[Role, Rows]
    used: dict[Role, Rows]


@dataclass(frozen=True)
class Excerpt:
    """The rows of a table that a batch reads: a training step computes with these in place of the table."""

    leaf: Tensor  # (U, d), where the gradient arrives
    rows: np.ndarray  # (U,) their numbers in the table
    ranks: Mapping[Side, Tensor]  # the batch's ids of a side as rows of the leaf


class Tables(nn.Module):
    """One set of embedding tables, row 0 of items and categories being padding and of positions the target.

    `sides`: target, behaviours or both read from it. `excerpts` (by field) replace the tables while there are any.
    """

    def __init__(self, counts: Counts, sizes: Sizes, fields: tuple[str, ...], sides: tuple[Side, ...] = SIDES) -> None:
        super().__init__()
        self.fields = fields  # in this order; nn.ParameterDict sorts its keys
        self.sides = sides
        self.excerpts: dict[str, Excerpt] = {}
        self.rows = {"item": counts.items + 1, "category": counts.categories + 1, "position": counts.history + 1}
        self.tables = nn.ParameterDict(
            {field: nn.Parameter(torch.empty(self.rows[field], sizes[field])) for field in fields}
        )

    def ids(self, batch: Batch, side: Side) -> dict[str, Tensor]:
        """Rows that a batch reads: (H, C) or (H, N), positions (1,) or (N,)."""
        items, categories = batch.target_items, batch.target_categories
        if side == "behaviour":
            items, categories = batch.history_items, batch.history_categories
        return {"item": items, "category": categories, "position": batch.positions[side]}

    def places(self, batch: Batch, side: Side) -> dict[str, Tensor]:
        """The same as rows of the leaves."""
        return self.ids(batch, side) | {field: excerpt.ranks[side] for field, excerpt in self.excerpts.items()}

    def leaf(self, field: str) -> Tensor:
        """The parameter that lookups read: the full table or, during a step, the rows of the batch."""
        return self.excerpts[field].leaf if field in self.excerpts else self.tables[field]

    def forward(self, batch: Batch, mirrors: Rows | None = None) -> dict[Side, Rows]:
        """Read the rows of a batch: see `Rows` for the shapes. `mirrors` are read instead of the leaves."""
        leaves = [self.leaf(field) if mirrors is None else mirrors[field] for field in self.fields]
        numbers = [self.places(batch, side) for side in self.sides]
        found = lookup(leaves, [[ids[field] for field in self.fields] for ids in numbers])
        rows = (dict(zip(self.fields, tensors, strict=True)) for tensors in found)
        return dict(zip(self.sides, rows, strict=True))


class EmbeddingScheme(nn.Module):
    """Tables for the four roles, and optional maps after them.

    Arguments: `assignment` names the set of tables of each role, `sizes` the embedding sizes of each set, `maps`
    (optional) takes and returns the rows of the four roles. With `equalised`, attention reads copies of its tables
    (`mirrors`) that get a gradient of their own, so that `combine_gradients` can weigh the gradients of the two
    modules before a step.
    """

    def __init__(
        self,
        assignment: Mapping[Role, str],
        sizes: Mapping[str, Sizes],
        counts: Counts,
        fields: tuple[str, ...] = FIELDS,
        maps: nn.Module | None = None,
        equalised: bool = False,
    ) -> None:
        super().__init__()
        self.assignment = dict(assignment)
        self.fields = fields
        served = {(name, side) for (_, side), name in assignment.items()}
        self.sets = nn.ModuleDict(
            {
                name: Tables(counts, sizes[name], fields, tuple(s for s in SIDES if (name, s) in served))
                for name in dict.fromkeys(assignment.values())
            }
        )
        self.maps = maps
        self.equalised = equalised
        self.mirrors: dict[str, Rows] = {}
        self.apart = False

    def tables(self, role: Role) -> Tables:
        """The set of tables that serves a role."""
        tables = self.sets[self.assignment[role]]
        assert isinstance(tables, Tables)
        return tables

    def table(self, role: Role, field: str) -> nn.Parameter:
        """The table (rows + 1, d) that serves a role."""
        return self.tables(role).tables[field]

    def batch(
        self,
        target_items: Tensor,
        target_categories: Tensor,
        history_items: Tensor,
        history_categories: Tensor,
        mask: Tensor | None = None,
    ) -> Batch:
        """A batch from ids: targets (B,) or (B, C), histories (B, N), `mask` (B, N) true for real behaviours.

        Raises ValueError for shapes that do not fit together, a history longer than the table of positions and, on a
        CPU (where the compiled lookup does not check), ids outside the tables.
        """
        histories, length = history_items.shape
        rows = self.tables(ROLES[1]).rows
        if length >= rows["position"]:
            raise ValueError(f"The histories have {length} behaviours, the model takes {rows['position'] - 1}.")
        if target_items.dim() == 1:
            target_items, target_categories = target_items.unsqueeze(1), target_categories.unsqueeze(1)
        if target_items.shape != target_categories.shape or target_items.shape[0] != histories:
            raise ValueError("Targets need one shape, (B,) or (B, C), with one row per history.")
        if history_categories.shape != history_items.shape:
            raise ValueError("Items and categories of the histories need one shape, (B, N).")
        if mask is not None:
            history_items, history_categories = (ids * mask for ids in (history_items, history_categories))
        batch = Batch(target_items, target_categories, history_items, history_categories)
        for side in SIDES if target_items.device.type == "cpu" else ():
            for field, ids in self.tables(ROLES[1]).ids(batch, side).items():
                if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < rows[field]:
                    raise ValueError(f"Ids of {field} must be from 0 (padding) to {rows[field] - 1}.")
        return batch

    def forward(self, batch: Batch) -> Vectors:
        if self.equalised:
            self.mirrors = {
                self.assignment["attention", side]: {
                    field: self.tables(("attention", side)).leaf(field).detach().requires_grad_()
                    for field in self.fields
                }
                for side in SIDES
            }
        read: dict[tuple[str, bool], dict[Side, Rows]] = {}
        rows: dict[Role, Rows] = {}
        for role in ROLES:
            key = name, mirrored = self.assignment[role], self.equalised and role[0] == "attention"
            if key not in read:  # tables shared by several roles are read once
                read[key] = self.sets[name](batch, self.mirrors[name] if mirrored else None)
            rows[role] = read[key][role[1]]
            if self.apart:
                rows[role] = {field: tensor.view_as(tensor) for field, tensor in rows[role].items()}
        return Vectors(rows, self.maps(rows) if self.maps is not None else rows)

    def combine_gradients(self) -> None:
        """After backward, before the step: nothing, unless the scheme is `equalised`. Then attention's gradient on each
        table is rescaled to the norm of representation's, over the whole table, and added to it (paper, appendix C;
        the published code)."""
        for name, mirror in self.mirrors.items():
            for field, leaf in mirror.items():
                table = self.sets[name].leaf(field)  # type: ignore[operator]
                if leaf.grad is not None and table.grad is not None and (norm := leaf.grad.norm()) > 0:
                    table.grad += leaf.grad * (table.grad.norm() / norm)
        self.mirrors = {}


def concatenated(rows: Rows) -> Tensor:
    """All fields in one vector: (H, C, D) of targets, (H, N, D) of behaviours."""
    shape = rows["item"].shape[:-1]
    return torch.cat([tensor.expand(*shape, -1) for tensor in rows.values()], -1)
