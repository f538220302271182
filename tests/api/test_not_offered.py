"""What the provider sells and this product does not: said in words, and not as if an id were wrong."""

import pytest

from core.api.not_offered import SECTIONS
from tests.api.contract import is_refusal
from tests.conftest import Customer

each_section = pytest.mark.parametrize("section", SECTIONS)


@each_section
def test_a_list_of_what_is_not_offered_is_empty(alice: Customer, section: str) -> None:
    answer = alice.get(f"/{section}/?page=1&page_size=20")

    assert (answer.status_code, answer.json()) == (200, SECTIONS[section])


@each_section
@pytest.mark.parametrize(
    ("method", "rest"),
    [("POST", ""), ("GET", "1/"), ("PUT", "1/"), ("PATCH", "1/"), ("DELETE", "1/"), ("POST", "1/restore/")],
)
def test_what_is_not_offered_is_refused_by_name(
    alice: Customer, section: str, method: str, rest: str
) -> None:
    answer = alice.ask(method, f"/{section}/{rest}", {"name": "x"})

    assert answer.status_code == 404
    assert is_refusal(answer.json(), "not_offered")
    assert section.replace("-", " ") in answer.json()["detail"]


@each_section
def test_nobody_is_told_anything(alice: Customer, section: str) -> None:
    assert alice.get(f"/{section}/", HTTP_AUTHORIZATION="").status_code == 401
