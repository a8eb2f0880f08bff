"""The home of the embedded servers: made right, or refused with a word on what to do."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from pydantic import SecretStr
from redis import Redis

from infra.local import local_servers
from infra.local.home import Account, blocked_at, open_home, temporary_home
from infra.settings import Settings
from models.errors import DataDirectoryTooNew, ServerTrouble

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="about what root does")


@pytest.fixture
def place() -> Iterator[Path]:
    with temporary_home() as made:
        yield made


def test_missing_folders_are_made_passable_whatever_the_umask(place: Path) -> None:
    before = os.umask(0o077)
    try:
        home = open_home(place / "var" / "lib" / "swath")
    finally:
        os.umask(before)
    assert stat.S_IMODE((place / "var" / "lib").stat().st_mode) == 0o755
    assert home.path == place / "var" / "lib" / "swath"


def test_a_layout_from_the_future_is_refused(place: Path) -> None:
    (place / "format").write_text("2\n")
    with pytest.raises(DataDirectoryTooNew, match="layout 2"):
        open_home(place)


def test_a_marker_that_is_no_number_is_refused(place: Path) -> None:
    (place / "format").write_text("ext4")
    with pytest.raises(ServerTrouble, match="'ext4'"):
        open_home(place)


def test_a_file_is_no_home(place: Path) -> None:
    (place / "file").write_text("")
    with pytest.raises(ServerTrouble, match="not a folder"):
        open_home(place / "file")


@needs_root
def test_root_is_told_which_folder_the_servers_cannot_enter(place: Path) -> None:
    closed = place / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(ServerTrouble, match=rf"cannot enter {closed}: set SWATH_HOME"):
        open_home(closed / "swath")
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


@needs_root
def test_root_does_not_take_over_the_home_of_a_user(place: Path) -> None:
    theirs = place / "theirs"
    theirs.mkdir()
    os.chown(theirs, 12345, 12345)
    with pytest.raises(ServerTrouble, match="belongs to user id 12345"):
        open_home(theirs)


@needs_root
def test_a_link_in_place_of_the_short_socket_folder_is_not_followed(place: Path) -> None:
    home = open_home(place / ("long" * 30))
    folder = home.socket_folder()
    folder.rmdir()
    folder.symlink_to(place)
    try:
        with pytest.raises(ServerTrouble, match="private folder"):
            home.socket_folder()
    finally:
        folder.unlink()


def test_who_may_enter_is_read_from_owner_group_and_mode(place: Path) -> None:
    folder = place / "shared"
    folder.mkdir()
    folder.chmod(0o710)
    owner, group = folder.stat().st_uid, folder.stat().st_gid
    stranger = 54321
    assert blocked_at(folder, Account("owner", owner or stranger, group)) is None
    assert blocked_at(folder, Account("stranger", stranger, stranger)) == folder


def test_servers_are_started_only_where_the_settings_name_none(place: Path) -> None:
    with local_servers(Settings(home=place)) as addresses:
        with psycopg.connect(addresses.database_url) as connection:
            assert connection.execute("SELECT current_database()").fetchone() == ("swath",)
        with Redis.from_url(addresses.redis_url) as client:
            assert client.ping()
        assert "postgres" not in repr(addresses)
    elsewhere = place / "unused"
    settings = Settings(home=elsewhere, database_url=SecretStr("postgresql://a/b"), redis_url=SecretStr("redis://c"))
    with local_servers(settings) as addresses:
        assert (addresses.database_url, addresses.redis_url) == ("postgresql://a/b", "redis://c")
    assert not elsewhere.exists()
