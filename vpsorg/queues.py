"""Which queue a message goes into.

One for each location, whose workers may live beside its hosts, and a shared one.

``provisioning.listen`` has workers listen to them.
"""

SHARED = "provision"  # what concerns no host


def at(location: str) -> str:
    """The queue of the location with this code: ``provision.us-west``."""
    return f"{SHARED}.{location}"
