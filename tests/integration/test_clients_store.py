from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis
from sqlalchemy import Engine, create_engine, make_url, text
from sqlalchemy.exc import IntegrityError
from typer.testing import CliRunner, Result

from infra.cli.clients import app
from infra.cli.farms import app as farms_app
from infra.local.home import temporary_home
from infra.secret_key import load_master_keys
from infra.settings import Settings
from models.clients import (
    API,
    HMAC,
    Client,
    create_client,
    list_clients,
    revoke_client,
    revoke_key,
    rotate_key,
)
from models.errors import BadInput
from models.keys import master_keys
from models.principals import (
    READ,
    TOMBSTONE,
    WRITE_FARMS,
    Caller,
    Outdated,
    announce,
    from_record,
    key_record,
    name_record,
    to_record,
)
from models.shared_tokens import token_key
from tests.support.shapes import feature, field, write_geojson

SECRET = "a secret of at least thirty-two characters"
MASTERS = master_keys(SECRET)
BOTH = (READ, WRITE_FARMS)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    made = create_engine(make_url(database_url).set(drivername="postgresql+psycopg"))
    yield made
    made.dispose()


def the_client(engine: Engine, *, include_revoked: bool = False) -> Client:
    with engine.connect() as connection:
        [client] = list_clients(connection, include_revoked=include_revoked)
    return client


class TestStored:
    def test_of_an_api_key_the_database_has_the_digest_and_of_a_signing_key_nothing(self, engine: Engine) -> None:
        with engine.begin() as connection:
            api, signing = create_client(connection, "coop", scopes=BOTH, masters=MASTERS, with_signing_key=True)
            rows = {row.kind: row for row in connection.execute(text("SELECT * FROM client_keys"))}
        assert bytes(rows[API].digest) == hashlib.sha256(api.secret.encode()).digest()
        assert rows[HMAC].digest is None
        everything = repr(rows)
        assert api.secret.split("_", 2)[2] not in everything
        assert signing.secret not in everything

    @pytest.mark.parametrize("name", ["", " ", "a b", "-a", "a:b", "ä", "a" * 65, "a\n"])
    def test_a_name_that_would_not_fit_everywhere_is_refused(self, engine: Engine, name: str) -> None:
        with engine.begin() as connection, pytest.raises(BadInput, match="name"):
            create_client(connection, name, scopes=BOTH, masters=MASTERS)

    @pytest.mark.parametrize("scopes", [(), ("write",), ("read", "Admin")])
    def test_unknown_scopes_are_refused(self, engine: Engine, scopes: tuple[str, ...]) -> None:
        with engine.begin() as connection, pytest.raises(BadInput, match=r"scopes.*allowed: read, farms:write, admin"):
            create_client(connection, "coop", scopes=scopes, masters=MASTERS)

    def test_a_name_is_never_used_twice_not_even_after_its_end(self, engine: Engine) -> None:
        with engine.begin() as connection:
            create_client(connection, "coop", scopes=BOTH, masters=MASTERS)
            revoke_client(connection, "coop")
            with pytest.raises(BadInput, match="there is, or was"):
                create_client(connection, "coop", scopes=BOTH, masters=MASTERS)

    def test_the_database_itself_refuses_unknown_scopes(self, engine: Engine) -> None:
        with pytest.raises(IntegrityError, match="ck_clients_known_scopes"), engine.begin() as connection:
            connection.execute(text("INSERT INTO clients (name, scopes) VALUES ('x', '{root}')"))

    def test_rotation_lets_the_old_key_go_on_for_the_overlap(self, engine: Engine) -> None:
        with engine.begin() as connection:
            [old] = create_client(connection, "coop", scopes=BOTH, masters=MASTERS)
        with engine.begin() as connection:
            new, outdated = rotate_key(connection, "coop", kind=API, overlap=dt.timedelta(hours=1), masters=MASTERS)
        keys = {key.prefix: key for key in the_client(engine).keys}
        ends = keys[old.prefix].expires_at
        assert ends is not None
        assert ends - keys[new.prefix].created_at == dt.timedelta(hours=1)
        assert keys[new.prefix].expires_at is None
        assert outdated == Outdated(changed=(key_record(API, old.prefix),))
        with engine.begin() as connection:  # an end that is near is not put off by a longer overlap
            rotate_key(connection, "coop", kind=API, overlap=dt.timedelta(days=9), masters=MASTERS)
        assert {key.prefix: key.expires_at for key in the_client(engine).keys}[old.prefix] == ends

    def test_rotation_without_overlap_ends_the_old_key_and_leaves_the_other_kind_alone(self, engine: Engine) -> None:
        with engine.begin() as connection:
            old, signing = create_client(connection, "coop", scopes=BOTH, masters=MASTERS, with_signing_key=True)
            _, outdated = rotate_key(connection, "coop", kind=API, overlap=dt.timedelta(0), masters=MASTERS)
        assert outdated == Outdated(ended=(key_record(API, old.prefix),))
        assert {key.prefix: key.expires_at for key in the_client(engine).keys}[signing.prefix] is None

    def test_revoking_a_client_ends_its_keys_its_name_and_its_token(self, engine: Engine) -> None:
        with engine.begin() as connection:
            api, signing = create_client(connection, "coop", scopes=BOTH, masters=MASTERS, with_signing_key=True)
            outdated = revoke_client(connection, "coop")
        client = the_client(engine, include_revoked=True)
        assert client.revoked_at is not None
        assert set(outdated.ended) == {
            key_record(API, api.prefix),
            key_record(HMAC, signing.prefix),
            name_record("coop", None),
            name_record("coop", 1),
            token_key(client.id),
        }

    def test_revoking_a_signing_key_ends_the_shared_token_and_an_api_key_only_itself(self, engine: Engine) -> None:
        with engine.begin() as connection:
            api, signing = create_client(connection, "coop", scopes=BOTH, masters=MASTERS, with_signing_key=True)
            of_api = revoke_key(connection, "coop", api.secret)  # whoever has only the key itself may paste it
            of_signing = revoke_key(connection, "coop", signing.key_id)
        assert of_api.ended == (key_record(API, api.prefix),)
        assert name_record("coop", 1) in of_signing.ended
        assert name_record("coop", None) not in of_signing.ended
        assert the_client(engine).keys == ()

    def test_a_key_of_another_client_is_not_found(self, engine: Engine) -> None:
        with engine.begin() as connection:
            [theirs] = create_client(connection, "theirs", scopes=BOTH, masters=MASTERS)
            create_client(connection, "coop", scopes=BOTH, masters=MASTERS)
            with pytest.raises(BadInput, match="no such key"):
                revoke_key(connection, "coop", theirs.prefix)
            with pytest.raises(BadInput, match="there is no client nobody"):
                revoke_key(connection, "nobody", theirs.prefix)


class TestRecords:
    def test_a_record_comes_back_as_it_was(self) -> None:
        ends = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)
        row = {"client_id": 7, "name": "coop", "scopes": ["read"], "digest": b"\x01\x02", "expires_at": ends}
        caller = Caller(client_id=7, name="coop", scopes=frozenset({"read"}), digest="0102", expires_at=ends)
        assert from_record(to_record(row)) == caller

    @pytest.mark.parametrize("record", [b"", b"{}", b"[]", b"x", b'{"client_id": 1}'])
    def test_what_is_no_record_is_nobody(self, record: bytes) -> None:
        assert from_record(record) is None

    def test_what_ended_has_a_tombstone_and_what_changed_is_gone(self, redis_url: str) -> None:
        with Redis.from_url(redis_url) as client:
            client.mset({"ended": b"1", "changed": b"1", "other": b"1"})
            announce(client, Outdated(ended=("ended",), changed=("changed",)))
            assert client.mget("ended", "changed", "other") == [TOMBSTONE, None, b"1"]
            assert 60 < client.ttl("ended") <= 120


class TestCommands:
    @pytest.fixture(autouse=True)
    def stores(self, database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SWATH_DATABASE_URL", database_url)
        monkeypatch.setenv("SWATH_REDIS_URL", redis_url)
        monkeypatch.setenv("SWATH_SECRET_KEY", SECRET)

    def clients(self, *arguments: object) -> Result:
        return CliRunner().invoke(app, [str(each) for each in arguments])

    def test_a_key_is_shown_once_and_never_listed(self) -> None:
        made = json.loads(self.clients("create", "coop", "--hmac", "--json").stdout)
        assert [key["kind"] for key in made["keys"]] == [API, HMAC]
        for words in (["list"], ["list", "--json"], ["list", "--all"]):
            said = self.clients(*words).stdout
            assert "coop" in said
            assert made["keys"][0]["prefix"] in said
            assert not any(key["secret"] in said for key in made["keys"])

    def test_people_read_the_same(self) -> None:
        said = self.clients("create", "coop", "--scopes", "read", "--hmac").stdout
        assert "Client coop may: read." in said
        assert "swk_" in said
        assert "swh_" in said
        assert "Keys of before go on for 24 hours" in self.clients("rotate", "coop").stdout
        assert "Keys of before have ended" in self.clients("rotate", "coop", "--hmac", "--overlap-hours", 0).stdout
        assert "coop is revoked" in self.clients("revoke", "coop").stdout
        assert "coop" not in self.clients("list").stdout
        assert "coop (revoked)" in self.clients("list", "--all").stdout

    def test_revoking_leaves_a_tombstone_for_the_workers(self, redis_url: str) -> None:
        made = json.loads(self.clients("create", "coop", "--json").stdout)
        told = json.loads(self.clients("revoke", "coop", "--key", made["keys"][0]["prefix"], "--json").stdout)
        assert told["is_at_once"] is True
        with Redis.from_url(redis_url) as client:
            assert client.get(key_record(API, made["keys"][0]["prefix"])) == TOMBSTONE

    def test_without_redis_it_is_revoked_all_the_same_and_says_what_that_means(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.clients("create", "coop")
        monkeypatch.setenv("SWATH_REDIS_URL", "redis://127.0.0.1:1")
        result = self.clients("revoke", "coop", "--json")
        assert json.loads(result.stdout)["is_at_once"] is False
        assert "for a minute" in result.stderr
        assert self.clients("list", "--json").stdout.strip() == "[]"

    def test_farms_are_given_to_a_client_by_importing_them(self, tmp_path: Path) -> None:
        farms = write_geojson(tmp_path / "f.geojson", [feature(field(lon=15 + n / 10), id=n) for n in range(2)])
        runner = CliRunner()
        assert runner.invoke(farms_app, ["import", str(farms)]).exit_code == 0
        for name in ("coop", "other"):
            self.clients("create", name)
        assert runner.invoke(farms_app, ["import", str(farms), "--client", "coop"]).exit_code == 0
        counted = {each["name"]: each["farms"] for each in json.loads(self.clients("list", "--json").stdout)}
        assert counted == {"coop": 2, "other": 0}
        refused = runner.invoke(farms_app, ["import", str(farms), "--client", "other"])
        assert isinstance(refused.exception, BadInput)
        unknown = runner.invoke(farms_app, ["import", str(farms), "--client", "nobody"])
        assert "there is no client nobody" in str(unknown.exception)


class TestSecretKey:
    def test_one_is_made_and_kept_for_its_owner_alone(self) -> None:
        with temporary_home() as home:
            settings = Settings(home=home)
            first = load_master_keys(settings)
            assert load_master_keys(settings) == first
            [file] = (home / "keys").iterdir()
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
            assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
            assert file.stat().st_uid == os.geteuid()

    def test_the_environment_goes_first_and_the_home_is_left_alone(self) -> None:
        with temporary_home() as home:
            settings = Settings(home=home, secret_key=SECRET)
            assert load_master_keys(settings) == MASTERS
            assert not (home / "keys").exists()
