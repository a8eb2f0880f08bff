"""Bodies of answers over HTTP, bounded in size and in time however slowly they come."""

from __future__ import annotations

import time

import requests
import urllib3

_CHUNK_BYTES = 1 << 16


class BodyTooLarge(Exception):
    """The body is larger than it may be."""


class BodyTooSlow(Exception):
    """The body was still coming when its time was up."""


def read_body(response: requests.Response, *, most_bytes: int, within_s: float) -> bytes:
    """The body of a streamed answer, unpacked; `response` must have been asked for with a timeout.

    Whatever has come is taken at once: `iter_content` waits until a chunk is full, so a server that sends a byte now
    and then keeps it waiting for hours, each byte within the timeout of the socket. The bound in time may be passed by
    one such timeout.

    Raises:
        BodyTooLarge, BodyTooSlow: it goes beyond a bound.
        requests.RequestException: it broke off, or cannot be unpacked.
    """
    deadline = time.monotonic() + within_s
    body = bytearray()
    try:
        while chunk := response.raw.read1(_CHUNK_BYTES, decode_content=True):
            body += chunk
            if len(body) > most_bytes:
                raise BodyTooLarge(f"above {most_bytes:,} bytes")
            if time.monotonic() > deadline:
                raise BodyTooSlow(f"still coming after {within_s:g} s")
    except urllib3.exceptions.ReadTimeoutError as error:
        raise requests.exceptions.ReadTimeout(str(error)) from error
    except urllib3.exceptions.DecodeError as error:
        raise requests.exceptions.ContentDecodingError(str(error)) from error
    except urllib3.exceptions.HTTPError as error:
        raise requests.exceptions.ChunkedEncodingError(str(error)) from error
    return bytes(body)
