"""The names of the message queues.

One for each location, whose workers may live beside its hosts, a shared one, and one
for the messages to customers' receivers.

``provisioning.worker_queues`` has workers listen to them.
"""

SHARED = "provision"  # work that concerns no hypervisor
WEBHOOKS = "webhooks"  # webhook deliveries, which wait for customers' receivers


def at(location: str) -> str:
    """The queue of the location with this code: ``provision.us-west``."""
    return f"{SHARED}.{location}"
