"""What can be a pool of addresses: pure checks, and which addresses of a network are for hosts."""

from collections.abc import Collection, Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from core.errors import Refusal

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

# No host on a public or private network has an address of these.
NO_HOSTS = {
    "this network": "0.0.0.0/8",
    "loopback": "127.0.0.0/8",
    "link-local": "169.254.0.0/16",
    "multicast": "224.0.0.0/4",
    "reserved": "240.0.0.0/4",
    "loopback or unspecified": "::/127",
    "IPv4-mapped": "::ffff:0:0/96",
    "link-local addresses": "fe80::/10",
    "multicast addresses": "ff00::/8",
}
_NO_HOSTS = {ip_network(text): name for name, text in NO_HOSTS.items()}


class NetworkRefused(Refusal):
    """This cannot be a pool.  The sentence says why."""

    code = "network_refused"


def network_from(text: str) -> Network:
    try:
        return ip_network(text)
    except ValueError as error:
        raise NetworkRefused(f"Not an address or network: {error}.") from None


def address_from(text: str) -> Address:
    try:
        address = ip_address(text)
    except ValueError as error:
        raise NetworkRefused(f"Not an address or network: {error}.") from None
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        raise NetworkRefused(f"Not an address or network: {text} means something on one machine only.")
    return address


def check_pool(
    network: Network, gateway: Address, nameservers: Collection[Address], named: Collection[Address]
) -> None:
    """Raises NetworkRefused unless servers can have the network's addresses with this gateway.

    ``named`` are addresses of the network that are reserved or not any more.
    """
    for without_hosts, name in _NO_HOSTS.items():
        if network.version == without_hosts.version and network.overlaps(without_hosts):
            raise NetworkRefused(f"{network} has {name} addresses, which servers cannot have.")
    _check_gateway(network, gateway)
    for nameserver in nameservers:
        if found := _kind_without_hosts(nameserver):
            raise NetworkRefused(f"The nameserver {nameserver} cannot be one: it is in {found}.")
    for address in named:
        if address not in network:
            raise NetworkRefused(f"{address} is not in {network}.")
    kept_back = {address for address in (gateway, *nameservers, *named) if is_usable(network, address)}
    if usable_count(network) <= len({gateway, *nameservers} & kept_back):
        raise NetworkRefused(f"{network} has no address that is left for a server.")


def _check_gateway(network: Network, gateway: Address) -> None:
    if gateway.version != network.version:
        raise NetworkRefused(f"The gateway {gateway} is not of the same kind as {network}.")
    if gateway in network:
        if not is_usable(network, gateway):
            is_first = gateway == network.network_address
            what = "the network itself" if is_first else "the broadcast"
            raise NetworkRefused(f"The gateway {gateway} is the address of {what}.")
        return
    # A router that is a neighbour all the same: by its link-local address, or of a server that has a network
    # for itself alone.
    if isinstance(gateway, IPv6Address) and gateway.is_link_local:
        return
    if network.prefixlen < network.max_prefixlen:
        raise NetworkRefused(f"The gateway {gateway} is not in {network}.")
    if not gateway.is_link_local and (found := _kind_without_hosts(gateway)):
        raise NetworkRefused(f"The gateway {gateway} cannot be one: it is in {found}.")


def _kind_without_hosts(address: Address) -> str | None:
    return next((f"{network} ({name})" for network, name in _NO_HOSTS.items() if address in network), None)


def first_usable(network: Network) -> Address:
    return network[0] if _has_no_edges(network) else network[1]


def last_usable(network: Network) -> Address:
    """IPv6 has no broadcast: its last address is one as any other."""
    return network[-1] if _has_no_edges(network) or network.version == 6 else network[-2]


def usable_count(network: Network) -> int:
    return int(last_usable(network)) - int(first_usable(network)) + 1


def is_usable(network: Network, address: Address) -> bool:
    """Whether a host can have this address of the network."""
    return address in network and int(first_usable(network)) <= int(address) <= int(last_usable(network))


def addresses_from(network: Network, start: Address, count: int) -> Iterator[Address]:
    """Up to so many usable addresses of the network, from this one on."""
    end = min(int(start) + count - 1, int(last_usable(network)))
    return (type(start)(number) for number in range(int(start), end + 1))


def _has_no_edges(network: Network) -> bool:
    """A single address, or the two ends of a line (RFC 3021, RFC 6164)."""
    return network.prefixlen >= network.max_prefixlen - 1
