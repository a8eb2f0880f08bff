"""How far away a host is, told by its name or address alone: nothing is resolved."""

from __future__ import annotations

import ipaddress
import re
import socket
from enum import IntEnum

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


class Reach(IntEnum):
    """Who can reach a host, from this machine alone to everybody."""

    MACHINE = 0
    """This machine and its link: loopback, link-local (where clouds serve credentials), unspecified."""
    PRIVATE = 1
    """A network of one's own: addresses that are not global, names without a dot or of a private domain."""
    PUBLIC = 2


_NAME = re.compile(r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?)*")
# Special-use names (RFC 6761, 6762, 8375), ICANN's `.internal`, and what routers and offices use without asking.
_PRIVATE_DOMAINS = (".internal", ".local", ".home.arpa", ".lan", ".intranet", ".corp", ".private")
_EMBEDDING = tuple(
    ipaddress.IPv6Network(network) for network in ("::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96", "::/96")
)
"""IPv6 networks whose addresses stand for the IPv4 address in their last four bytes."""


def reach_of(host: str | None) -> Reach | None:
    """Who can reach this host; None for what is not the name of a host, or not plainly so.

    Names that a program might read in another way than we do (other letters than ASCII, percent signs) are none.
    """
    host = (host or "").lower().removesuffix(".")
    address = address_of(host)
    if address is not None:
        if address.is_loopback or address.is_link_local or address.is_unspecified:
            return Reach.MACHINE
        return Reach.PUBLIC if address.is_global and not address.is_multicast else Reach.PRIVATE
    if not _NAME.fullmatch(host):
        return None
    if host == "localhost" or host.endswith((".localhost", ".localdomain")):
        return Reach.MACHINE
    return Reach.PRIVATE if "." not in host or host.endswith(_PRIVATE_DOMAINS) else Reach.PUBLIC


def address_of(host: str) -> IpAddress | None:
    """The IP address that a host is written as, in any of the ways that programs take: `127.1`, `0x7f.1`, `2130706433`.

    An IPv6 address that stands for an IPv4 one is that one. None for names.
    """
    try:
        address: IpAddress = ipaddress.ip_address(host)
    except ValueError:
        try:
            # Takes numbers only, in the forms of C's inet_aton; a blank would end what it looks at.
            return None if not host or re.search(r"\s", host) else ipaddress.IPv4Address(socket.inet_aton(host))
        except (OSError, UnicodeError):
            return None
    if isinstance(address, ipaddress.IPv6Address):
        if address.sixtofour is not None:
            return address.sixtofour
        if any(address in network for network in _EMBEDDING) and int(address) > 1:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address
