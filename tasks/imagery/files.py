"""Opening files: how patiently, as which formats only, under which name, and why it failed.

Items and file servers are foreign: what a file is, is told by its bytes, and some formats of GDAL name other files to
be read in their stead. Only formats that hold their own pixels are opened.
"""

from __future__ import annotations

import functools
import itertools
import re
import threading
import warnings
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import rasterio
import requests
from rasterio.errors import NotGeoreferencedWarning, RasterioIOError
from rasterio.io import DatasetReader

_FORMATS = ("GTiff", "JP2OpenJPEG")
_UNRECOGNIZED = "not recognized as being in a supported file format"
_BEGINNINGS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"\0\0\0\x0c", b"\xff\x4f\xff\x51")
"""First bytes of TIFF and BigTIFF in both byte orders, of JPEG 2000 in boxes and of its bare stream."""


class Unread(IntEnum):
    """Why a pixel could not be read; stands in the array in place of its number."""

    UNAVAILABLE = -1
    """Down, slow, overloaded or cut short: may work in a moment."""
    MISSING = -2
    """The file does not exist (404): may be published later."""
    REJECTED = -3
    """The server refused (401, 403, other 4xx)."""
    UNREADABLE = -4
    """The answer is not the raster it should be."""

    @property
    def is_retryable(self) -> bool:
        """Whether another try within the same run is worth it."""
        return self is Unread.UNAVAILABLE


class NotRead(RasterioIOError):  # type: ignore[misc]
    """A file that was not read for a reason that we found ourselves."""

    def __init__(self, problem: str, *, why: Unread) -> None:
        super().__init__(problem)
        self.why = why


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpLimits:
    """How patient the reader is with a file server."""

    timeout_s: float = 30
    """Longest time without progress."""
    connect_timeout_s: float = 10
    retries: int = 4
    """Further tries of one request after 429, 5xx or a broken connection."""
    retry_delay_s: float = 0.5


def gdal_options(limits: HttpLimits) -> dict[str, Any]:
    """GDAL configuration for reading cloud-optimised files over HTTP.

    Source: titiler's and GDAL's notes on performance tuning; each was measured with this reader.
    `GDAL_INGESTED_BYTES_AT_OPEN` is left off: with handles pooled per file it only adds requests.
    """
    return {
        "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
        "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
        "GDAL_HTTP_MAX_RETRY": str(limits.retries),
        "GDAL_HTTP_RETRY_DELAY": str(limits.retry_delay_s),
        "GDAL_HTTP_CONNECTTIMEOUT": str(max(1, round(limits.connect_timeout_s))),
        # A stalled transfer ends after timeout_s without progress; a slow but living one may go on for longer.
        "GDAL_HTTP_LOW_SPEED_TIME": str(max(1, round(limits.timeout_s))),
        "GDAL_HTTP_LOW_SPEED_LIMIT": "100",
        "GDAL_HTTP_TIMEOUT": str(max(1, round(limits.timeout_s * 10))),
        # Each handle keeps the header it was opened with, whatever else goes through the shared cache meanwhile.
        "VSI_CACHE": "TRUE",
        "VSI_CACHE_SIZE": "1000000",
        # Names in S3 take no mark that would make them new, so what GDAL knows of a file there goes with its handle.
        "CPL_VSIL_CURL_NON_CACHED": "/vsis3/",
        "GDAL_CACHEMAX": 128,
        "GDAL_NUM_THREADS": "1",
    }


_thread = threading.local()


def use_gdal_options(limits: HttpLimits) -> None:
    """Set GDAL's options for this thread, once: entering `rasterio.Env` again and again leaks (rasterio#2932)."""
    if getattr(_thread, "limits", None) != limits:
        _thread.environment = rasterio.Env(**gdal_options(limits))
        _thread.environment.__enter__()
        _thread.limits = limits


_attempts = itertools.count(1)


def gdal_path(url: str) -> str:
    """The name under which GDAL opens `url`, for web addresses new at every call.

    GDAL remembers a failed read by name: the same name asked again makes no request (rasterio#2119). A fragment is
    part of the name but is never sent to the server, so a reader made for another try really asks again. In S3 it would
    be part of the key; there `gdal_options` has GDAL forget a file when it is closed.
    """
    if url.startswith(("http://", "https://")):
        return f"/vsicurl/{url}#{next(_attempts)}"
    if url.startswith("s3://"):
        return "/vsis3/" + url.removeprefix("s3://")
    return url.removeprefix("file://")


@functools.cache
def formats() -> tuple[str, ...]:
    """The formats that files may have: those Sentinel-2 comes in, as far as this GDAL reads them."""
    with rasterio.Env() as environment:
        known = environment.drivers()
    return tuple(name for name in _FORMATS if name in known)


def open_raster(path: str, **options: Any) -> Any:
    """Open a file under a name that `gdal_path` gave, for one thread, as a format that holds its own pixels.

    The thread must have called `use_gdal_options`.

    Raises:
        RasterioIOError: it cannot be opened; `why_unread` tells why.
    """
    _be_quiet()
    try:  # `rasterio.open` takes one driver only
        return DatasetReader(path, driver=list(formats()), sharing=False, **options)
    except RasterioIOError as error:
        if _UNRECOGNIZED not in str(error) or not path.startswith("/vsi"):
            raise
        raise NotRead(str(error), why=_why_unrecognized(path, _thread.limits)) from error


def _why_unrecognized(path: str, limits: HttpLimits) -> Unread:
    """Ask a web address for its first bytes, once, and tell why GDAL did not take it for a raster.

    GDAL says the same of a page that asks to sign in and of a raster whose first bytes came with status 503, too late
    or not at all. Only the second is worth another try. Of files in S3 we cannot tell, so they are.
    """
    if not path.startswith("/vsicurl/"):
        return Unread.UNAVAILABLE
    url, timeout = path.removeprefix("/vsicurl/"), (limits.connect_timeout_s, limits.timeout_s)
    try:
        with requests.get(url, headers={"Range": "bytes=0-3"}, timeout=timeout, stream=True) as response:
            if response.status_code == 416:  # an empty file has no first byte
                return Unread.UNREADABLE
            if not response.ok:
                return why_refused(response.status_code)
            beginning = next(response.iter_content(4), b"")
    except (requests.RequestException, OSError):
        return Unread.UNAVAILABLE
    return Unread.UNAVAILABLE if beginning in _BEGINNINGS else Unread.UNREADABLE


def _be_quiet() -> None:
    """Have rasterio not wonder on the user's screen about a header cut short: who opens the file looks at it.

    Set once for the process, since `warnings.catch_warnings` is not made for threads.
    """
    if not any(kind is NotGeoreferencedWarning and action == "ignore" for action, _, kind, _, _ in warnings.filters):
        warnings.simplefilter("ignore", NotGeoreferencedWarning)


def why_unread(error: BaseException) -> Unread:
    """Class an error of GDAL by what it says along its chain of causes."""
    if isinstance(error, NotRead):
        return error.why
    texts = []
    cause: BaseException | None = error
    while cause is not None:
        texts.append(str(cause))
        cause = cause.__cause__ or cause.__context__
    text = " | ".join(texts)
    if match := re.search(r"HTTP response code: (\d{3})|response_code=(\d{3})", text):
        return why_refused(int(match[1] or match[2]))
    # all bytes came and do not decode: `ZIPDecode:Decoding error at scanline 512`
    if _UNRECOGNIZED in text or "Decode:" in text:
        return Unread.UNREADABLE
    if "No such file or directory" in text:
        return Unread.MISSING
    return Unread.UNAVAILABLE


def why_refused(status: int) -> Unread:
    """Class an answer by its status."""
    if status in (404, 410):
        return Unread.MISSING
    if 400 <= status < 500 and status not in (408, 425, 429):
        return Unread.REJECTED
    return Unread.UNAVAILABLE
