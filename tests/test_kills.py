"""A killed command, run again, ends with the same numbers; `tests/kills.py` does it a hundred times."""

import pytest
from kills import try_command


@pytest.mark.parametrize("name", ["prepare", "train"])
def test_a_killed_command_ends_with_the_same_numbers_when_run_again(name: str) -> None:
    assert "the same numbers" in try_command(name, kills=2)
