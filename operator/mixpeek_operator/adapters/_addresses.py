"""Names to addresses that may be reached: public ones, and what the administrator allows."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final

from mixpeek_operator.core.errors import Problem, SpecError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

# A cloud's own services for the machine that asks (Azure, Oracle), and ranges that older Pythons take for public.
_RESERVED: Final = tuple(map(ipaddress.ip_network, ("168.63.129.16/32", "192.0.0.0/24", "64:ff9b:1::/48")))
_TRANSLATED: Final = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("::/96"))


async def resolve_host(host: str, port: int) -> Sequence[str]:
    """Return the addresses of a host name; raises OSError when it has none."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(item[4][0]) for item in found))


def networks(text: str) -> tuple[Network, ...]:
    """Return the networks of a comma-separated setting. Raises SpecError naming the one that is wrong."""
    found: list[Network] = []
    for part in filter(None, (item.strip() for item in text.split(","))):
        try:
            found.append(ipaddress.ip_network(part, strict=False))
        except ValueError as error:
            raise SpecError(f"MIXPEEK_OUTBOUND_ALLOW_CIDRS: {part!r} is not a network ({error})") from error
    return tuple(found)


class Addresses:
    """Resolves and checks."""

    def __init__(self, allow_cidrs: str, resolve: Resolve) -> None:
        self._allowed = networks(allow_cidrs)
        self._resolve = resolve

    async def checked(self, host: str, port: int) -> str:
        """Return an address of the host; all of them have to be reachable.

        Raises SpecError with `unknown_host` or `address_refused`.
        """
        try:
            addresses = await self._resolve(host, port)
        except (OSError, UnicodeError):
            addresses = ()
        if not addresses:
            raise SpecError.of([Problem("unknown_host", f"the host {host!r} has no address")])
        for address in addresses:
            if not self.reachable(ipaddress.ip_address(address.split("%")[0])):
                message = (
                    f"{host!r} is a private, loopback or reserved address ({address}); an administrator can allow its "
                    "network with MIXPEEK_OUTBOUND_ALLOW_CIDRS"
                )
                raise SpecError.of([Problem("address_refused", message)])
        return addresses[0]

    def reachable(self, address: Address) -> bool:
        """Whether an address, and any IPv4 address it stands for, is public or allowed."""
        return all(self._one(part) for part in _meanings(address))

    def _one(self, address: Address) -> bool:
        if any(address.version == network.version and address in network for network in self._allowed):
            return True
        if any(address in network for network in _RESERVED):
            return False
        return address.is_global and not address.is_multicast


def _meanings(address: Address) -> Iterator[Address]:
    """The addresses that a packet to this one may reach: an IPv6 address may carry an IPv4 one."""
    if isinstance(address, ipaddress.IPv4Address):
        yield address
    elif address.ipv4_mapped is not None:
        yield address.ipv4_mapped
    elif address.sixtofour is not None:
        yield address.sixtofour
    else:
        yield address
        if any(address in network for network in _TRANSLATED) and int(address) > 1:
            yield ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
