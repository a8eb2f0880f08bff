"""Answers reach a reader in one piece, and whole, whatever their length and however the connection ends."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from serving.whole_answers import MOST_HELD, WholeAnswers

LONG = bytes(range(256)) * (3 * MOST_HELD // 256)
PIECES = 200


async def _short(_request: Request) -> Response:
    return Response(b"short")


async def _long(_request: Request) -> Response:
    return Response(LONG)


async def _pieces(_request: Request) -> Response:
    async def pieces() -> object:
        for _ in range(PIECES):
            yield b"0123456789"

    return StreamingResponse(pieces())  # type: ignore[arg-type]


APP = Starlette(routes=[Route("/short", _short), Route("/long", _long), Route("/pieces", _pieces)])


def _with_reader(ask: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> None:
    async def run() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            config = uvicorn.Config(APP, http=WholeAnswers, log_config=None, lifespan="off", ws="none")
            server = uvicorn.Server(config)
            served = asyncio.create_task(server.serve(sockets=[listener]))
            reader, writer = await asyncio.open_connection(*listener.getsockname())
            try:
                await asyncio.wait_for(ask(reader, writer), timeout=20)
            finally:
                writer.close()
                server.should_exit = True
                await served

    with asyncio.Runner(loop_factory=uvicorn.Config(APP).get_loop_factory()) as runner:
        runner.run(run())


def _request(path: str, *, method: str = "GET", more: str = "") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nhost: here\r\n{more}\r\n".encode()


def test_head_and_body_come_together_one_answer_after_the_other() -> None:
    async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(20):
            writer.write(_request("/short"))
            told = await reader.read(65_536)
            assert told.startswith(b"HTTP/1.1 200 OK\r\n")
            assert told.endswith(b"\r\n\r\nshort")

    _with_reader(ask)


def test_an_answer_without_a_body_is_sent() -> None:
    async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(_request("/short", method="HEAD"))
        told = await reader.read(65_536)
        assert b"content-length: 5" in told
        assert told.endswith(b"\r\n\r\n")

    _with_reader(ask)


def test_a_connection_is_closed_after_the_last_byte_and_not_before() -> None:
    async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(_request("/long", more="connection: close\r\n"))
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        assert b"connection: close" in head
        assert body == LONG

    _with_reader(ask)


def test_many_pieces_arrive_in_their_order() -> None:
    async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(_request("/pieces", more="connection: close\r\n"))
        told = await reader.read()
        assert told.count(b"a\r\n0123456789\r\n") == PIECES
        assert told.endswith(b"0\r\n\r\n")

    _with_reader(ask)


def test_what_cannot_be_understood_is_refused_before_the_connection_closes() -> None:
    async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"this is no HTTP\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 400 ")

    _with_reader(ask)
