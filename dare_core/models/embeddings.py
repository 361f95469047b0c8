"""Embedding schemes: which table serves which role.

A behaviour and a target each need an *attention* and a *representation* embedding, so there are four
roles. A scheme assigns a set of tables (item, category, position) to every role: one set for all is TWIN's
shared embedding, one for each module is DARE (paper, section 3), one for each role is TWIN-4E (3.4).
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
    """What a scheme gives for a batch.

    `rows` are the embeddings read for each role *before* any map. Where the scheme keeps its roles `apart`, each is
    its own node of the autograd graph even where roles share a table: the gradient that arrives there is the role's
    own part of the table's gradient. `used` are the vectors that the model computes with: the same, or mapped.
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

    `sides`: whose ids it is read with. `excerpts` (by field) stand in for the tables while there are any.
    """

    def __init__(self, counts: Counts, sizes: Sizes, fields: tuple[str, ...], sides: tuple[Side, ...] = SIDES) -> None:
        super().__init__()
        self.fields = fields  # in this order; nn.ParameterDict sorts its keys
        self.sides = sides
        self.excerpts: dict[str, Excerpt] = {}
        rows = {"item": counts.items, "category": counts.categories, "position": counts.history}
        self.tables = nn.ParameterDict(
            {field: nn.Parameter(torch.empty(rows[field] + 1, sizes[field])) for field in fields}
        )

    def ids(self, batch: Batch, side: Side) -> dict[str, Tensor]:
        """Rows that a batch reads: (H, C) or (H, N), positions (1,) or (N,)."""
        position = batch.positions[side]
        if side == "target":
            return {"item": batch.target_items, "category": batch.target_categories, "position": position}
        return {"item": batch.history_items, "category": batch.history_categories, "position": position}

    def leaf(self, field: str) -> Tensor:
        """What is read: the table, or its excerpt."""
        return self.excerpts[field].leaf if field in self.excerpts else self.tables[field]

    def forward(self, batch: Batch, mirrors: Rows | None = None) -> dict[Side, Rows]:
        """Read the rows of a batch: see `Rows` for the shapes. `mirrors` are read instead of the leaves."""
        leaves = [self.leaf(field) if mirrors is None else mirrors[field] for field in self.fields]
        rows: dict[Side, Rows] = {}
        ids = []
        for side in self.sides:
            numbers = self.ids(batch, side)
            numbers |= {field: excerpt.ranks[side] for field, excerpt in self.excerpts.items()}
            ids.append([numbers[field] for field in self.fields])
        found = lookup(leaves, ids)
        for side, tensors in zip(self.sides, found, strict=True):
            rows[side] = dict(zip(self.fields, tensors, strict=True))
        return rows


class EmbeddingScheme(nn.Module):
    """Tables for the four roles, and optional maps behind them.

    Arguments: `assignment` names the tables of each role, `sizes` the embedding sizes of each name, `maps`
    (optional) takes and returns the rows of the four roles. With `equalised`, attention reads its tables
    through mirrors (the same values, a gradient of their own), so that `combine_gradients` can weigh the
    gradients of the two modules before a step.
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
            module, side = role
            name, mirrored = self.assignment[role], self.equalised and module == "attention"
            key = (name, mirrored)
            if key not in read:  # tables shared by several roles are read once
                read[key] = self.sets[name](batch, self.mirrors[name] if mirrored else None)
            rows[role] = read[key][side]
            if self.apart:
                rows[role] = {field: tensor.view_as(tensor) for field, tensor in rows[role].items()}
        return Vectors(rows, self.maps(rows) if self.maps is not None else rows)

    def combine_gradients(self) -> None:
        """After backward, before the step: nothing, unless the scheme is `equalised`.

        Then attention's gradient on each table is rescaled to the norm of representation's, over the whole
        table, and added to it (paper, appendix C; the published code).
        """
        for name, mirror in self.mirrors.items():
            tables = self.sets[name]
            assert isinstance(tables, Tables)
            for field, leaf in mirror.items():
                table = tables.leaf(field)
                if leaf.grad is None or table.grad is None:
                    continue
                norm = leaf.grad.norm()
                if norm > 0:
                    table.grad += leaf.grad * (table.grad.norm() / norm)
        self.mirrors = {}


def shared_tables() -> dict[Role, str]:
    """One set of tables for everything (DIN, TWIN)."""
    return dict.fromkeys(ROLES, "shared")


def decoupled_tables() -> dict[Role, str]:
    """One set for attention, one for representation (DARE; paper, section 3)."""
    return {role: role[0] for role in ROLES}


def three_tables() -> dict[Role, str]:
    """Attention split into target and behaviour, representation shared by both (published code)."""
    return {role: "_".join(role) if role[0] == "attention" else "representation" for role in ROLES}


def four_tables() -> dict[Role, str]:
    """One set for each role (TWIN-4E; paper, section 3.4)."""
    return {role: "_".join(role) for role in ROLES}
