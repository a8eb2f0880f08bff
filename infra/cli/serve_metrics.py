"""The metrics of `swath serve`: told from threads of the process that keeps the workers and has little else to do."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator

import structlog

from infra.local import Addresses
from infra.settings import Settings
from models.errors import ServerTrouble
from serving.sheets import Sheets

log = structlog.get_logger(__name__)


@contextlib.contextmanager
def metrics(settings: Settings, addresses: Addresses, sheets: Sheets, *, tell: Callable[[str], None]) -> Iterator[None]:
    """Tell the workers' figures and how the work stands, for the time of the block.

    Args:
        settings: of this process.
        addresses: of the stores that are asked how the work stands, in the background.
        sheets: where the workers count.
        tell: takes a line that says where the metrics are.

    Raises:
        ServerTrouble: somebody has the port that the settings name.
    """
    if settings.metrics == "off":
        yield
        return
    # Loaded when the workers are on their way, who load the same.
    from serving.app import layout_of, with_metrics
    from serving.metrics import PATH, Page
    from serving.metrics_listener import metrics_listener
    from serving.standing import Watch

    page = Page(layout_of(with_metrics(settings)), sheets)
    token = settings.metrics_token.get_secret_value() if settings.metrics_token else None
    with contextlib.ExitStack() as stack:
        if settings.metrics == "listener":
            listener = stack.enter_context(_socket(settings))
            stack.enter_context(metrics_listener(listener, page, token=token))
            host, port = listener.getsockname()[:2]
            tell(f"metrics at http://{f'[{host}]' if ':' in host else host}:{port}{PATH}")
        urls = {"database_url": addresses.database_url, "redis_url": addresses.redis_url}
        stack.enter_context(Watch(settings, sheets, **urls))
        yield


def _socket(settings: Settings) -> socket.socket:
    host, port = settings.metrics_host, settings.metrics_port
    try:
        return _bound(host, port)
    except OSError as error:
        if "metrics_port" in settings.model_fields_set:
            problem = f"cannot listen on {host}:{port}: {error.strerror}; choose another SWATH_METRICS_PORT"
            raise ServerTrouble(problem) from error
    # Another Swath on this machine, most likely: no reason not to serve.
    log.warning("metrics are on another port, because somebody has the usual one", usual=port)
    try:
        return _bound(host, 0)
    except OSError as error:
        raise ServerTrouble(f"cannot listen on {host}: {error.strerror}; see SWATH_METRICS_HOST") from error


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family)
