"""Pauses after failures grow, and end."""

from core.backoff import Backoff, jittered_s


def test_pauses_double_up_to_the_longest() -> None:
    pauses = Backoff(first_s=1, longest_s=30)

    assert [pauses.pause_s(failures) for failures in range(7)] == [1, 2, 4, 8, 16, 30, 30]
    assert pauses.pause_s(10**6) == 30
    assert [pauses.after(1), pauses.after(16)] == [2, 30]


def test_what_failed_together_does_not_come_back_together() -> None:
    pauses = Backoff(first_s=1, longest_s=30)

    several = [pauses.jittered_s(3) for _ in range(50)]

    assert all(4 <= pause <= 8 for pause in several)
    assert len(set(several)) > 40
    assert 8 <= jittered_s(10, least=0.8, most=1.2) <= 12
