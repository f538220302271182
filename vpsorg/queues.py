"""Which queue a message goes into.

One for each location, whose workers may live beside its hosts, a shared one, and one
for the messages to customers' receivers.

``provisioning.listen`` has workers listen to them.
"""

SHARED = "provision"  # what concerns no host
WEBHOOKS = "webhooks"  # what waits for customers' receivers


def at(location: str) -> str:
    """The queue of the location with this code: ``provision.us-west``."""
    return f"{SHARED}.{location}"
