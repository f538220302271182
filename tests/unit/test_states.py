"""The table of operations: whole, and consistent in itself."""

import pytest

from provisioning.workflows import WORKFLOWS
from servers.states import (
    GONE,
    PUBLIC_STATUSES,
    RULES,
    OperationKind,
    PowerState,
    ServerStatus,
    refusal,
    status_after_failure,
)

S, K = ServerStatus, OperationKind

# While one of these shows, an operation is open; none but DELETE may be asked for.
MEANWHILE = {rule.shows for rule in RULES.values()}

each_kind = pytest.mark.parametrize("kind", OperationKind)


@each_kind
def test_every_kind_has_its_row_and_its_workflow(kind: OperationKind) -> None:
    assert kind in RULES
    assert kind in WORKFLOWS


@each_kind
def test_what_shows_meanwhile_is_no_place_to_stay(kind: OperationKind) -> None:
    """Or a server could be left for good in a status that promises a change."""
    ends = {RULES[rule].succeeds_in for rule in RULES} | {RULES[rule].fails_in for rule in RULES}

    assert RULES[kind].shows not in ends


@each_kind
def test_nothing_but_a_delete_may_be_asked_for_meanwhile(kind: OperationKind) -> None:
    if kind != OperationKind.DELETE:
        assert not RULES[kind].allowed_in & MEANWHILE


@pytest.mark.parametrize("status", ServerStatus)
def test_a_server_can_be_given_up_in_every_status_but_gone(status: ServerStatus) -> None:
    assert (status in RULES[OperationKind.DELETE].allowed_in) == (status not in GONE)


def test_a_server_is_only_born_by_a_create() -> None:
    assert RULES[OperationKind.CREATE].allowed_in == frozenset()


@each_kind
def test_only_a_delete_is_tried_for_ever(kind: OperationKind) -> None:
    assert (RULES[kind].deadline is None) == (kind == OperationKind.DELETE)


@pytest.mark.parametrize(
    ("kind", "allowed_in", "shows", "then"),
    [
        (K.START, S.STOPPED, S.STARTING, S.ACTIVE),
        (K.STOP, S.ACTIVE, S.STOPPING, S.STOPPED),
        (K.REBOOT, S.ACTIVE, S.REBOOTING, S.ACTIVE),
    ],
)
def test_the_contracts_actions_are_in_the_table(
    kind: OperationKind, allowed_in: ServerStatus, shows: ServerStatus, then: ServerStatus
) -> None:
    rule = RULES[kind]

    assert (rule.allowed_in, rule.shows, rule.succeeds_in) == (frozenset({allowed_in}), shows, then)


def test_only_an_unsuspend_or_a_delete_gets_a_server_out_of_suspension() -> None:
    """Guard: ``CHANGEABLE``, without SUSPENDED, in the rows of RULES."""
    assert {kind for kind in K if S.SUSPENDED in RULES[kind].allowed_in} == {K.UNSUSPEND, K.DELETE}
    assert {kind for kind in K if RULES[kind].succeeds_in == S.SUSPENDED} == {K.SUSPEND}


@each_kind
@pytest.mark.parametrize("power", PowerState)
def test_what_fails_leaves_what_the_host_says_and_a_suspended_server_that_is_off_suspended(
    kind: OperationKind, power: PowerState
) -> None:
    """Or it would be off for good, though it was paid for.  Guard: ``status_after_failure``."""
    for before in RULES[kind].allowed_in:
        off = S.SUSPENDED if before == S.SUSPENDED else S.STOPPED
        says = {PowerState.RUNNING: S.ACTIVE, PowerState.PAUSED: S.ACTIVE, PowerState.OFF: off}
        assert status_after_failure(kind, before, power) == says.get(power, before)


def test_the_contracts_words_can_be_filtered_by() -> None:
    assert {"active", "stopped", "suspended", "provisioning", "starting", "stopping", "rebooting"} <= set(
        PUBLIC_STATUSES
    )


@each_kind
@pytest.mark.parametrize("status", ServerStatus)
@pytest.mark.parametrize("power", PowerState)
def test_every_refusal_has_a_code_and_a_sentence(
    kind: OperationKind, status: ServerStatus, power: PowerState
) -> None:
    code, sentence = refusal(kind, status, power)

    assert code.replace("_", "").isalpha()
    assert code.islower()
    assert sentence[0].isupper()
    assert sentence.endswith(".")
