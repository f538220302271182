"""Fifty clients on one server, whatever they ask in whatever order: the state table holds at each step.

Workers are the rows' own verbs here, driven by hand: what is under test is who may do what when.
"""

from typing import Any

import pytest
from django.db import connection, transaction
from django.utils import timezone
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from core.errors import NotAllowedNow, NotFound, OperationInProgress
from servers import lifecycle
from servers.lifecycle import Failure, LeaseLost
from servers.models import Operation, Server
from servers.states import (
    GONE,
    OPEN_OPERATION,
    RULES,
    STATUS_OF_POWER,
    OperationKind,
    PowerState,
    ServerStatus,
)
from tests.factories import ServerFactory, wish_for

pytestmark = pytest.mark.django_db(transaction=True)

S, K = ServerStatus, OperationKind
CLIENTS = 50
ASKED = sorted(set(OperationKind) - {K.CREATE})


class ManyClients(RuleBasedStateMachine):
    """The model knows the table and nothing else; the rows must agree with it after every step."""

    @initialize(status=st.sampled_from([S.ACTIVE, S.STOPPED]))
    def begin(self, status: ServerStatus) -> None:
        self.pk = ServerFactory.create(status=status).pk
        self.status: ServerStatus = status
        self.open: OperationKind | None = None
        self.before: ServerStatus = status
        self.stale = [self.row for _ in range(CLIENTS)]
        self.worker: Operation | None = None
        self.silent: list[Operation] = []
        self.ghosts: list[Operation] = []

    @property
    def row(self) -> Server:
        return Server.objects.get(pk=self.pk)

    @rule(client=st.integers(0, CLIENTS - 1), kind=st.sampled_from(ASKED))
    def ask(self, client: int, kind: OperationKind) -> None:
        """A client asks by what it knew of the server the last time it looked."""
        try:
            lifecycle.request(self.stale[client], kind, wish=wish_for(kind))
        except NotFound:
            assert self.status in GONE
        except OperationInProgress:
            assert self.open is not None
            assert kind != K.DELETE
        except NotAllowedNow:
            assert self.open is None
            assert self.status not in RULES[kind].allowed_in
        else:
            assert self.status not in GONE
            assert kind == K.DELETE or self.open is None
            assert kind == K.DELETE or self.status in RULES[kind].allowed_in
            self._bury(self.worker)
            self.before, self.status, self.open = self.status, RULES[kind].shows, kind
        self.stale[client] = self.row

    @precondition(lambda self: self.open is not None and self.worker is None)
    @rule()
    def take(self) -> None:
        operation = Operation.objects.get(server=self.pk, status__in=OPEN_OPERATION)
        self.worker = lifecycle.begin(operation.pk)
        held = Operation.objects.filter(server=self.pk, lease_until__gt=timezone.now())
        assert (self.worker is not None) == (not held.exclude(pk=operation.pk).exists())
        if self.worker is not None:
            self._bury(None)

    @precondition(lambda self: self.worker is not None)
    @rule()
    def die(self) -> None:
        """The worker is silent for longer than its lease: once another one takes over it is a ghost."""
        assert self.worker is not None
        self.silent.append(self.worker)
        self.worker = None
        Operation.objects.filter(server=self.pk).update(lease_until=timezone.now())

    @precondition(lambda self: self.ghosts)
    @rule()
    def let_go(self) -> None:
        lifecycle.let_go(self.ghosts[-1])

    @precondition(lambda self: self.worker is not None)
    @rule()
    def succeed(self) -> None:
        assert self.worker is not None
        assert self.open is not None
        lifecycle.succeed(self.worker)
        self.status = RULES[self.open].succeeds_in or self._as_before()
        self.open, self.worker = None, None

    @precondition(lambda self: self.worker is not None and RULES[self.open].deadline is not None)
    @rule(power=st.sampled_from(PowerState))
    def fail(self, power: PowerState) -> None:
        assert self.worker is not None
        assert self.open is not None
        lifecycle.give_up(self.worker, Failure("internal", "It did not work."))
        lifecycle.fail(self.worker, power)
        told = RULES[self.open].fails_in or STATUS_OF_POWER.get(power, self.before)
        still_suspended = (self.open, told) == (K.UNSUSPEND, S.STOPPED)
        self.status = S.SUSPENDED if still_suspended else told
        self.open, self.worker = None, None

    @precondition(lambda self: self.ghosts)
    @rule(data=st.data())
    def haunt(self, data: Any) -> None:
        """A ghost tries to write."""
        ghost = data.draw(st.sampled_from(self.ghosts))
        writes = [lifecycle.succeed, lifecycle.renew, lambda op: lifecycle.fail(op, PowerState.OFF)]
        with pytest.raises(LeaseLost), transaction.atomic():
            data.draw(st.sampled_from(writes))(ghost)

    def _bury(self, worker: Operation | None) -> None:
        """Who held the operation, or was silent, holds it no more."""
        self.ghosts += [*self.silent, *([worker] if worker else [])]
        self.silent = []
        if worker:
            self.worker = None

    def _as_before(self) -> ServerStatus:
        operation = Operation.objects.filter(server=self.pk).latest("pk")
        return ServerStatus(operation.subject_server.suspended_from or operation.status_before)

    @invariant()
    def the_row_says_what_the_table_says(self) -> None:
        row = self.row
        assert row.status == self.status
        opened = list(row.operations.filter(status__in=OPEN_OPERATION).values_list("kind", flat=True))
        assert opened == ([self.open] if self.open else [])
        assert (row.deleted_at is not None) == (self.status in GONE)
        if self.status not in GONE:
            suspended = {S.SUSPENDING, S.SUSPENDED, S.UNSUSPENDING}
            assert bool(row.suspended_from) == (self.status in suspended)

    def teardown(self) -> None:
        connection.close()


TestManyClients = ManyClients.TestCase
TestManyClients.settings = settings(
    max_examples=40,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)
