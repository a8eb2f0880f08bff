"""Addresses of Redis: what they say, and what is said of those that are none."""

from __future__ import annotations

import asyncio

import pytest
import redis
from redis.asyncio import SSLConnection

from infra.redis_address import SentinelAddress, ServerAddress, redis_address
from infra.stores import redis_client
from models.errors import BadInput
from serving.cache import open_redis

SINGLE = (
    "redis://localhost",
    "redis://:p%40ss@redis.example:6380/3",
    "redis://user:a,b@[2001:db8::1]:6379/0",
    "rediss://redis.example/1?ssl_ca_certs=/etc/ca.pem&ssl_check_hostname=false",
    "unix:///run/valkey.sock?db=2",
    "unix:///with%20space/valkey.sock",
)


@pytest.mark.parametrize("url", SINGLE)
def test_an_address_of_one_server_is_taken_as_it_is(url: str) -> None:
    assert redis_address(url) == ServerAddress(url)


def test_an_address_of_sentinels_tells_all_of_them() -> None:
    found = redis_address(
        "redis+sentinel://app:s%2Fec%40ret@one.example,two.example:26380,[2001:db8::3]:5000/main/4"
        "?sentinel_user=watch&sentinel_password=o%26ther"
    )
    assert isinstance(found, SentinelAddress)
    assert found.sentinels == (("one.example", 26379), ("two.example", 26380), ("2001:db8::3", 5000))
    assert (found.name, found.is_tls) == ("main", False)
    assert found.server_options == {"db": 4, "username": "app", "password": "s/ec@ret"}
    assert found.sentinel_options == {"username": "watch", "password": "o&ther"}


def test_the_least_that_sentinels_need_is_a_host_and_a_name() -> None:
    found = redis_address("redis+sentinel://one/main")
    assert isinstance(found, SentinelAddress)
    assert found.sentinels == (("one", 26379),)
    assert (found.server_options, found.sentinel_options) == ({"db": 0}, {})


def test_tls_holds_for_the_primary_and_for_its_sentinels() -> None:
    url = "rediss+sentinel://one,two/main?ssl_ca_certs=/etc/ca.pem&ssl_check_hostname=false"
    found = redis_address(url)
    assert isinstance(found, SentinelAddress)
    wanted = {"ssl": True, "ssl_ca_certs": "/etc/ca.pem", "ssl_check_hostname": False}
    assert found.server_options == {"db": 0, **wanted}
    assert found.sentinel_options == wanted
    made = redis_client(url).connection_pool.make_connection()
    assert isinstance(made, redis.connection.SSLConnection)
    assert (made.ca_certs, made.check_hostname) == ("/etc/ca.pem", False)

    async def make() -> None:
        made = open_redis(url).connection_pool.make_connection()
        assert isinstance(made, SSLConnection)
        assert (made.ca_certs, made.check_hostname) == ("/etc/ca.pem", False)

    asyncio.run(make())


def test_secrets_are_not_shown() -> None:
    assert "hidden" not in repr(redis_address("redis://:hidden@localhost"))
    assert "hidden" not in repr(redis_address("redis+sentinel://:hidden@one/main?sentinel_password=hidden"))


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("", "is not an address of Redis"),
        ("hidden", "is not an address of Redis"),
        ("http://hidden", "is not an address of Redis"),
        ("sentinel://one/main", "is not an address of Redis"),
        ("redis://one:port", "has a host that is none"),
        ("redis://one:70000", "has a port that is none"),
        ("redis://one:0", "has a port that is none"),
        ("redis://", "has a host that is none"),
        ("redis://:hid/den@one", "has a host that is none"),
        ("redis://one,two", "names several hosts"),
        ("redis://one/main", "has a database that is no number"),
        ("redis://one/0/1", "has a database that is no number"),
        ("redis://one?db=hidden", "has a database that is no number"),
        ("redis://one?socket_timeout=90", "has options that redis:// does not take"),
        ("redis://one?ssl_ca_certs=hidden", "has options that redis:// does not take"),
        ("rediss://one?ssl_check_hostname=hidden", "has an unknown ssl_check_hostname"),
        ("unix://", "names no socket"),
        ("unix:///a?db=hidden", "has a database that is no number"),
        ("redis+sentinel://one,two", "does not name the primary"),
        ("redis+sentinel://one,two/", "does not name the primary"),
        ("redis+sentinel://:hidden@/main", "has a host that is none"),
        ("redis+sentinel://one,,two/main", "has a host that is none"),
        ("redis+sentinel://one,two three/main", "has a host that is none"),
        ("redis+sentinel://[::zz]/main", "has a host that is none"),
        ("redis+sentinel://[::1:::]/main", "has a host that is no IPv6 address"),
        ("redis+sentinel://one/main/zero", "has a database that is no number"),
        ("redis+sentinel://one/main?db=1", "has options that redis+sentinel:// does not take"),
        (f"redis+sentinel://{','.join(['one'] * 33)}/main", "names too many hosts"),
    ],
)
def test_what_is_no_address_is_refused_by_its_part_and_not_repeated(url: str, problem: str) -> None:
    for read in (redis_address, redis_client, open_redis):
        with pytest.raises(BadInput) as caught:
            read(url)
        assert caught.value.field == "SWATH_REDIS_URL"
        assert caught.value.problem.startswith(problem)
        assert caught.value.allowed
        assert "hid" not in str(caught.value)
