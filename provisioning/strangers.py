"""Machines with our names of which no row is known: the database is older than the host, as after a restore.

An operator must compare them before the host sells anything or their addresses go to another customer.
"""

import logging
from collections.abc import Collection
from uuid import UUID

from inventory.models import Hypervisor
from inventory.pools import reserve
from provisioning import hypervisors
from provisioning.trials import trials
from servers.models import Server

log = logging.getLogger(__name__)


def fault_of_strangers(hypervisor: Hypervisor, machines: Collection[UUID]) -> str:
    """A sentence for staff if some of a host's machines belong to no server; else an empty text.

    The addresses that such machines have are reserved, until staff give them free.  Raises HypervisorError.
    """
    known = Server.objects.filter(uuid__in=machines).values_list("uuid", flat=True)
    strangers = set(machines) - set(known)
    strangers -= set(trials().filter(uuid__in=strangers).values_list("uuid", flat=True))
    if not strangers:
        return ""
    found = [one for one in hypervisors.driver_for(hypervisor).machines() if one.uuid in strangers]
    held = {address for one in found for card in one.cards for address in card.addresses}
    reserve(hypervisor.location, held)
    names = ", ".join(sorted(map(str, strangers)))
    log.error("host %s has machines of no server, and takes nothing new: %s", hypervisor, names)
    return f"It has {len(strangers)} machines of ours of which no server is known: see manage.py verify."
