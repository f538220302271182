"""docs/reliability.md shows the table as it is, and names tests that exist."""

import re
from pathlib import Path

from servers.state_diagram import mermaid
from servers.states import RULES

PROJECT = Path(__file__).parents[2]
PAGE = (PROJECT / "docs" / "reliability.md").read_text()


def test_the_picture_is_what_the_table_says() -> None:
    """When it fails: python -m servers.state_diagram prints what should stand there."""
    assert f"```mermaid\n{mermaid()}\n```" in PAGE


def test_the_picture_has_every_operation_and_what_shows_meanwhile() -> None:
    for kind, rule in RULES.items():
        assert rule.shows in mermaid()
        assert f": {kind}" in mermaid() or kind == "delete"


def test_the_tests_that_it_names_are_there() -> None:
    named = re.findall(r"`(tests/\S+?\.py)`", PAGE)
    assert len(named) > 8
    assert [path for path in named if not (PROJECT / path).exists()] == []
