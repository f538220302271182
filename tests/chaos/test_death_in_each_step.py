"""A worker dies in each step of each operation, before and after the step; another one brings it to its end.

Guard: ``lease_until__lt`` in lifecycle.begin; without it nobody goes on where the dead one stopped.
"""

from collections.abc import Callable
from typing import Any

import pytest

from inventory.models import Hypervisor
from provisioning.workflows import WORKFLOWS
from servers import services
from servers.models import Operation, Server
from servers.states import RULES, OperationKind, OperationStatus, ServerStatus
from tests.chaos.conftest import Plant, await_end, create_of, ordered
from tests.chaos.truth import assert_all_is_true
from tests.factories import OsVersionFactory, PlanFactory

pytestmark = pytest.mark.timeout(400)

K = OperationKind


def operations(kind: OperationKind, servers: list[Server]) -> list[Operation]:
    """One of this kind for each server, ordered as customers and staff do."""
    wanted: dict[OperationKind, dict[str, Any]] = {
        K.RESIZE: {"plan": PlanFactory.create(slug="bigger", vcpus=2, memory_mib=192, disk_gib=2)},
        K.REBUILD: {"os_version": servers[0].os_version},
        K.SUSPEND: {"reason": "abuse"},
    }
    return ordered(servers, getattr(services, f"{kind}_server"), **wanted.get(kind, {}))
