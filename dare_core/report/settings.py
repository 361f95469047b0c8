"""Base configuration of every chapter, and the label of its results."""

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError

from dare_core.config import Strict, explain
from dare_core.errors import InputError
from dare_core.files import canonical_json, short_hash
from dare_core.report.ledger import results_folder

NOTEBOOKS = "smoke"
"""The profile of the notebooks' own parameters."""
LABELS = ("profile", "results")
"""Parameters that change no number."""


def label_of(profile: str, beyond: Mapping[str, Any]) -> str:
    """Label of results: the profile's name, and a hash of the parameters that are not the profile's, if any."""
    return f"{profile}+{short_hash(canonical_json(dict(beyond)))[:8]}" if beyond else profile


class ChapterConfig(Strict):
    """Parameters of every chapter."""

    profile: str = Field(NOTEBOOKS, description="label of the results, and where they are written")
    results: str = Field("", description="folder of the metrics files; by default in the store, by label")

    @classmethod
    def of(cls, namespace: Mapping[str, Any]) -> Self:
        """The configuration from a notebook's variables, each named as its parameter."""
        return cls.checked({name: namespace[name] for name in cls.model_fields if name in namespace})

    @classmethod
    def checked(cls, values: Mapping[str, Any]) -> Self:
        """Validate values; InputError for an unknown name (with the nearest), a wrong type or range."""
        for name in values:
            if name not in cls.model_fields:
                near = get_close_matches(name, cls.model_fields, 1, 0.4)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                raise InputError(f"There is no parameter {name!r}.{hint} There are: {', '.join(cls.model_fields)}.")
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise explain(error, "parameters") from error

    @property
    def label(self) -> str:
        """Label of the results. A notebook run by hand with parameters of its own gets one of its own."""
        if self.profile != NOTEBOOKS:
            return self.profile
        given = self.model_dump(mode="json", exclude={*LABELS}, exclude_defaults=True)
        return label_of(NOTEBOOKS, given)

    @property
    def results_path(self) -> Path:
        """Folder of the metrics files."""
        return Path(self.results) if self.results else results_folder(self.label)
