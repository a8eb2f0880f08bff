"""The network, closed except for this machine.

`pytest-socket` stops Python's own sockets (see `pyproject.toml`). Libraries in C and Rust, GDAL above all, and child
processes do not pass through them, but all of them respect a proxy: it is one on which nobody listens.
"""

from __future__ import annotations

_NOWHERE = "http://127.0.0.1:9"
_THIS_MACHINE = "127.0.0.1,localhost,::1"


def closed_network() -> dict[str, str]:
    """The environment variables that lead every request for another machine nowhere."""
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), _NOWHERE)
    variables = proxies | {"no_proxy": _THIS_MACHINE}
    return variables | {name.upper(): value for name, value in variables.items()}
