"""Maps after shared tables: decoupling by projection (paper, section 2.3 and appendix C).

A map takes the rows of the four roles and returns vectors of the same form. Its key says which roles share a map:
`by_role` gives each role its own, `by_module` one to attention and one to representation.
"""

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from dare_core.models.embeddings import ROLES, Role, Rows, Sizes, concatenated

Key = Callable[[Role], str]
Layer = Callable[[int], nn.Module]
"""Makes a map from the size of the embedding that it takes."""


def by_role(role: Role) -> str:
    """Attention and representation of target and of behaviour: four."""
    return "_".join(role)


def by_module(role: Role) -> str:
    """Attention, representation: two, each shared by target and behaviour."""
    return role[0]


def linear(size: int, out: int | None = None) -> nn.Module:
    """d -> `out`, or d -> d, without bias."""
    return nn.Linear(size, out or size, bias=False)


def multilayer(*hidden: int) -> Layer:
    """d -> hidden -> PReLU ... -> d, with biases."""

    def layer(size: int) -> nn.Module:
        widths = [size, *hidden]
        layers: list[nn.Module] = []
        for width_in, width_out in zip(widths, hidden, strict=False):
            layers += [nn.Linear(width_in, width_out), nn.PReLU()]
        return nn.Sequential(*layers, nn.Linear(widths[-1], size))

    return layer


class FieldMaps(nn.Module):
    """A map for each of some fields; the other fields pass unchanged.

    `sizes` are the embedding sizes of each role. A table's row is mapped where it is read: (H, C, d) and
    (H, N, d), positions (1, d) and (N, d) once for the whole batch.
    """

    def __init__(self, sizes: Mapping[Role, Sizes], key: Key, fields: tuple[str, ...], layer: Layer) -> None:
        super().__init__()
        self.key = key
        self.mapped = fields
        widths = {self.name(role, field): sizes[role][field] for role in ROLES for field in fields}
        self.layers = nn.ModuleDict({name: layer(size) for name, size in widths.items()})

    def name(self, role: Role, field: str) -> str:
        """Name of the map of a role and field."""
        return f"{self.key(role)}_{field}"

    def forward(self, rows: Mapping[Role, Rows]) -> dict[Role, Rows]:
        return {
            role: {
                field: self.layers[self.name(role, field)](tensor) if field in self.mapped else tensor
                for field, tensor in fields.items()
            }
            for role, fields in rows.items()
        }


class JoinedMaps(nn.Module):
    """A linear map with bias on the concatenation of all fields, whose output is cut into fields again."""

    def __init__(self, sizes: Mapping[Role, Sizes], key: Key) -> None:
        super().__init__()
        self.key = key
        widths = {key(role): sum(sizes[role].values()) for role in ROLES}
        self.layers = nn.ModuleDict({name: nn.Linear(width, width) for name, width in widths.items()})

    def forward(self, rows: Mapping[Role, Rows]) -> dict[Role, Rows]:
        mapped: dict[Role, Rows] = {}
        for role, fields in rows.items():
            joined: Tensor = self.layers[self.key(role)](concatenated(fields))
            cut = joined.split([tensor.shape[-1] for tensor in fields.values()], -1)
            mapped[role] = dict(zip(fields, cut, strict=True))
        return mapped
