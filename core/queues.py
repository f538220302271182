"""The names of the message queues.

Two for each location, whose workers may live beside its hosts: one for what customers wait for, one for
backups.  Two shared ones of the same kinds, and one for the messages to customers' receivers.

``provisioning.worker_queues`` has workers listen to them.
"""

SHARED = "provision"  # work that concerns no hypervisor
BACKUPS = "backups"  # copies of disks, which take long: a worker at one is away from customers' orders
WEBHOOKS = "webhooks"  # webhook deliveries, which wait for customers' receivers


def at(location: str, shared: str = SHARED) -> str:
    """The queue of the location with this code: ``provision.us-west``, or of its backups."""
    return f"{shared}.{location}"
