"""Where Redis is, told by one address: a single server, or Sentinels that know which server is the primary.

For all who connect, whether they wait for answers or not; it loads nothing that they would not load anyway.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote

from models.errors import BadInput

FIELD = "SWATH_REDIS_URL"
SENTINEL_PORT = 26379
MOST_SENTINELS = 32

_ALLOWED = (
    "redis://host:6379/0, rediss://…, unix:///path, or of Sentinel redis+sentinel://[user:password@]host1,host2/NAME/0 "
    "and rediss+sentinel://…"
)
_TLS_OPTIONS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname")
_OPTIONS = {
    "redis": ("db",),
    "rediss": ("db", *_TLS_OPTIONS),
    "unix": ("db",),
    "redis+sentinel": ("sentinel_user", "sentinel_password"),
    "rediss+sentinel": ("sentinel_user", "sentinel_password", *_TLS_OPTIONS),
}
"""What may stand behind the question mark, by scheme. No timeouts and no tries: these are ours, and they are short."""

_ADDRESS = re.compile(
    r"(?P<scheme>[a-z+]+)://(?:(?P<login>[^/?#]*)@)?(?P<hosts>[^/?#]*)(?P<path>[^?#]*)(?:\?(?P<query>[^#]*))?"
)
_HOST = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9._-]+))(?::(?P<port>\d{1,5}))?")
_DATABASE = re.compile(r"/?(\d{1,4})?")


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """One server."""

    url: str = field(repr=False)
    """For redis-py's `from_url`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SentinelAddress:
    """Sentinels, and the name by which they know the primary; secrets are not shown by `repr`."""

    sentinels: tuple[tuple[str, int], ...]
    """Host and port."""
    name: str
    server_options: Mapping[str, str | int | bool] = field(repr=False)
    """For redis-py's connection to the primary: its database, login, and TLS."""
    sentinel_options: Mapping[str, str | bool] = field(repr=False)
    """For redis-py's connections to Sentinels, whose login is one of their own."""
    is_tls: bool


def redis_address(url: str) -> ServerAddress | SentinelAddress:
    """Read an address of Redis.

    Raises:
        BadInput: it is none; says which part is wrong and repeats nothing of it, as it may hold a password.
    """
    found = _ADDRESS.fullmatch(url)
    if found is None or found["scheme"] not in _OPTIONS:
        raise _bad("is not an address of Redis")
    options = _options(found["scheme"], found["query"] or "")
    if found["scheme"] == "unix":
        _check_database(options.get("db", ""))
        if not found["path"].strip("/"):
            raise _bad("names no socket")
        return ServerAddress(url)
    hosts = _hosts(found["hosts"])
    if found["scheme"].endswith("+sentinel"):
        return _sentinels(found, hosts, options)
    if len(hosts) > 1:
        raise _bad("names several hosts", allowed="one, or redis+sentinel://… for Sentinels")
    _check_database(found["path"])
    _check_database(options.get("db", ""))
    return ServerAddress(url)


def _sentinels(
    found: re.Match[str], hosts: tuple[tuple[str, int | None], ...], options: dict[str, str]
) -> SentinelAddress:
    name, _, database = found["path"].strip("/").partition("/")
    if not name:
        raise _bad("does not name the primary that the Sentinels watch", allowed="redis+sentinel://host1,host2/NAME/0")
    is_tls = found["scheme"].startswith("rediss")
    tls: dict[str, str | bool] = {key: _tls_option(key, options[key]) for key in _TLS_OPTIONS if key in options}
    tls |= {"ssl": True} if is_tls else {}
    user, _, password = (found["login"] or "").partition(":")
    own = _login(options.get("sentinel_user", ""), options.get("sentinel_password", ""))
    return SentinelAddress(
        sentinels=tuple((host, port or SENTINEL_PORT) for host, port in hosts),
        name=unquote(name),
        server_options={"db": _check_database(database), **_login(unquote(user), unquote(password)), **tls},
        sentinel_options={**own, **tls},
        is_tls=is_tls,
    )


def _hosts(text: str) -> tuple[tuple[str, int | None], ...]:
    names = text.split(",")
    if len(names) > MOST_SENTINELS:
        raise _bad("names too many hosts", allowed=f"at most {MOST_SENTINELS}")
    return tuple(_host(each) for each in names)


def _host(text: str) -> tuple[str, int | None]:
    found = _HOST.fullmatch(text)
    if found is None:
        raise _bad("has a host that is none", allowed="name, name:port, [IPv6]:port; @, : and / in a password as %40…")
    if found["six"]:
        try:
            ipaddress.IPv6Address(found["six"])
        except ValueError:
            raise _bad("has a host that is no IPv6 address", allowed="[2001:db8::1]:6379") from None
    port = int(found["port"]) if found["port"] else None
    if port is not None and not 1 <= port <= 65_535:
        raise _bad("has a port that is none", allowed="1 to 65535")
    return found["six"] or found["name"], port


def _check_database(text: str) -> int:
    found = _DATABASE.fullmatch(text)
    if found is None:
        raise _bad("has a database that is no number", allowed="a number such as /0 at the end")
    return int(found[1] or 0)


def _options(scheme: str, query: str) -> dict[str, str]:
    given = dict(parse_qsl(query, keep_blank_values=True))
    if not set(given) <= set(_OPTIONS[scheme]):
        raise _bad(f"has options that {scheme}:// does not take", allowed=", ".join(_OPTIONS[scheme]))
    for key in _TLS_OPTIONS:
        _tls_option(key, given.get(key, "true"))
    return given


def _tls_option(key: str, text: str) -> str | bool:
    if key != "ssl_check_hostname":
        return text
    if text.lower() not in ("true", "false"):
        raise _bad(f"has an unknown {key}", allowed="true or false")
    return text.lower() == "true"


def _login(user: str, password: str) -> dict[str, str]:
    return {name: value for name, value in (("username", user), ("password", password)) if value}


def _bad(problem: str, *, allowed: str = _ALLOWED) -> BadInput:
    return BadInput(FIELD, problem, allowed=allowed)
