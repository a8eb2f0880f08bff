from __future__ import annotations

import base64
import datetime as dt
import json
import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from models.errors import BadInput
from models.keys import master_keys
from models.principals import READ, WRITE_FARMS
from serving.token_keys import KeyFile
from serving.tokens import LEEWAY_S, OWN_KEY_ID, Claims, TokenReader, TokenRefused, signed, signing_key

NEW, OLD = "new secret of at least thirty-two characters", "old secret of at least thirty-two characters"
MASTERS = master_keys(NEW)
ISSUER, AUDIENCE = "https://identity.example", "swath"

SECRET = os.urandom(32)
RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
PRIVATE: dict[str, Any] = {"HS256": SECRET, "RS256": RSA, "ES256": EC, "EdDSA": ED}


def word(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def public(algorithm: str, key: Any = None, **more: Any) -> dict[str, Any]:
    """The key as identity services publish it."""
    key = PRIVATE[algorithm] if key is None else key
    if algorithm == "HS256":
        fields: dict[str, Any] = {"kty": "oct", "k": word(key), "alg": "HS256"}
    else:
        kind = {"RS256": jwt.algorithms.RSAAlgorithm, "ES256": jwt.algorithms.ECAlgorithm}.get(
            algorithm, jwt.algorithms.OKPAlgorithm
        )
        fields = {**json.loads(kind.to_jwk(key.public_key())), "alg": algorithm}
        fields.pop("key_ops", None)
    return {"kid": algorithm.lower(), **fields, **more}


def write(file: Path, keys: list[dict[str, Any]]) -> Path:
    draft = file.with_suffix(".draft")
    draft.write_text(json.dumps({"keys": keys}))
    return draft.rename(file)


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    return write(tmp_path / "keys.json", [public(algorithm) for algorithm in PRIVATE])


@pytest.fixture
def reader(keys_file: Path) -> TokenReader:
    return TokenReader(MASTERS, audience=AUDIENCE, foreign=KeyFile(keys_file, issuer=ISSUER), clock=time.time)


def foreign(algorithm: str = "RS256", *, headers: dict[str, Any] | None = None, key: Any = None, **claims: Any) -> str:
    said = {"iss": ISSUER, "aud": AUDIENCE, "sub": "coop", "exp": int(time.time()) + 600, **claims}
    return jwt.encode(
        {name: value for name, value in said.items() if value is not None},
        PRIVATE[algorithm] if key is None else key,
        algorithm=algorithm,
        headers={"kid": algorithm.lower()} if headers is None else headers,
    )


def own(*, master: int = 0, masters: Any = MASTERS, lasts_s: float = 600, **changed: Any) -> str:
    now = dt.datetime.now(dt.UTC)
    claims = {
        "client": "coop",
        "token_id": uuid.UUID(int=1),
        "generation": 3,
        "issued_at": now,
        "expires_at": now + dt.timedelta(seconds=lasts_s),
        **changed,
    }
    return signed(Claims(**claims), masters.keys[master], audience=AUDIENCE)


class TestOwn:
    def test_it_names_client_and_generation_and_never_administers(self, reader: TokenReader) -> None:
        token = reader.read(own())
        assert (token.client, token.generation, token.scopes) == ("coop", 3, {READ, WRITE_FARMS})

    def test_the_same_claims_make_the_same_token(self) -> None:
        at = dt.datetime(2026, 11, 23, tzinfo=dt.UTC)
        assert own(issued_at=at, expires_at=at) == own(issued_at=at, expires_at=at)

    def test_those_of_the_master_secret_before_count_until_it_is_taken_away(self) -> None:
        both, old = master_keys(f"{NEW},{OLD}"), master_keys(OLD)
        text = own(masters=old)
        assert TokenReader(both, audience=AUDIENCE, foreign=None, clock=time.time).read(text).client == "coop"
        with pytest.raises(TokenRefused, match="key that is not known"):
            TokenReader(MASTERS, audience=AUDIENCE, foreign=None, clock=time.time).read(text)

    def test_without_a_generation_it_could_never_be_ended(self, reader: TokenReader) -> None:
        master = MASTERS.newest
        said = {"iss": "swath", "aud": AUDIENCE, "sub": "coop", "exp": int(time.time()) + 60}
        text = jwt.encode(said, signing_key(master), headers={"kid": OWN_KEY_ID + master.id})
        with pytest.raises(TokenRefused, match="generation"):
            reader.read(text)

    def test_after_its_end_it_does_not_count_even_when_it_was_seen_before(self) -> None:
        now = [time.time()]
        reader = TokenReader(MASTERS, audience=AUDIENCE, foreign=None, clock=lambda: now[0])
        text = own(lasts_s=600)
        assert reader.read(text) is reader.read(text)
        now[0] += 600 + LEEWAY_S - 2
        assert reader.read(text).client == "coop"
        now[0] += 3
        with pytest.raises(TokenRefused, match="has expired"):
            reader.read(text)


class TestForeign:
    @pytest.mark.parametrize("algorithm", PRIVATE)
    def test_each_algorithm_that_is_taken_works(self, reader: TokenReader, algorithm: str) -> None:
        token = reader.read(foreign(algorithm, scope="read farms:write"))
        assert (token.client, token.generation, token.scopes) == ("coop", None, {READ, WRITE_FARMS})

    def test_without_scopes_it_may_read(self, reader: TokenReader) -> None:
        assert reader.read(foreign()).scopes == {READ}

    def test_an_audience_among_several_is_enough(self, reader: TokenReader) -> None:
        assert reader.read(foreign(aud=["other", AUDIENCE])).client == "coop"

    def test_a_generation_said_by_others_means_nothing(self, reader: TokenReader) -> None:
        assert reader.read(foreign(gen=3)).generation is None

    @pytest.mark.parametrize(
        ("claims", "reason"),
        [
            ({"exp": int(time.time()) - LEEWAY_S - 5}, "has expired"),
            ({"exp": None}, "lacks exp"),
            ({"aud": "other"}, "somebody else"),
            ({"aud": None}, "lacks aud"),
            ({"iss": "https://other.example"}, "another issuer"),
            ({"iss": "swath"}, "another issuer"),
            ({"iss": None}, "lacks iss"),
            ({"sub": None}, "lacks sub"),
            ({"sub": "two words"}, "does not name a client"),
            ({"nbf": int(time.time()) + 3600}, "not good yet"),
            ({"iat": int(time.time()) + 3600}, "not good yet"),
            ({"scope": ["read"]}, "scopes"),
            ({"exp": float("inf")}, "malformed"),
            ({"exp": "soon"}, "malformed"),
        ],
    )
    def test_what_it_must_say_it_must_say_right(self, reader: TokenReader, claims: dict[str, Any], reason: str) -> None:
        with pytest.raises(TokenRefused, match=reason):
            reader.read(foreign(**claims))

    @pytest.mark.parametrize("seconds", [-LEEWAY_S + 10, 10])
    def test_clocks_may_differ_a_little(self, reader: TokenReader, seconds: int) -> None:
        now = int(time.time())
        assert reader.read(foreign(exp=now + seconds)).client == "coop"
        assert reader.read(foreign(nbf=now + LEEWAY_S - 10, iat=now + LEEWAY_S - 10)).client == "coop"


class TestForged:
    def test_none_is_no_algorithm(self, reader: TokenReader) -> None:
        head = word(json.dumps({"alg": "none", "kid": "rs256"}).encode())
        body = foreign().split(".")[1]
        for text in (f"{head}.{body}.", f"{head}.{body}"):
            with pytest.raises(TokenRefused):
                reader.read(text)

    def test_a_public_key_is_no_secret_to_sign_with(self, reader: TokenReader) -> None:
        """The oldest trick: HS256 with the public key, which everybody knows, as the secret."""
        known = RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        header = word(json.dumps({"alg": "HS256", "kid": "rs256"}).encode())
        body = foreign().split(".")[1]
        signature = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(
            f"{header}.{body}".encode(), known
        )
        with pytest.raises(TokenRefused, match="another algorithm than its key is for"):
            reader.read(f"{header}.{body}.{word(signature)}")

    @pytest.mark.parametrize("algorithm", ["HS512", "RS512", "PS256"])
    def test_other_algorithms_are_not_taken(self, reader: TokenReader, algorithm: str) -> None:
        key = os.urandom(64) if algorithm.startswith("HS") else RSA
        with pytest.raises(TokenRefused, match="not signed by one of"):
            reader.read(jwt.encode({"sub": "coop"}, key, algorithm=algorithm, headers={"kid": "rs256"}))

    def test_another_key_under_a_known_name_does_not_hold(self, reader: TokenReader) -> None:
        with pytest.raises(TokenRefused, match="does not hold"):
            reader.read(foreign(key=rsa.generate_private_key(65537, 2048)))
        with pytest.raises(TokenRefused, match="does not hold"):
            reader.read(
                own(masters=master_keys(OLD)).replace(own(masters=master_keys(OLD)).split(".")[0], own().split(".")[0])
            )

    def test_a_foreign_key_cannot_vouch_for_our_own_tokens(self, reader: TokenReader) -> None:
        with pytest.raises(TokenRefused, match="another issuer"):
            reader.read(foreign("HS256", iss="swath", gen=1))

    def test_every_part_is_covered_by_the_signature(self, reader: TokenReader) -> None:
        text = own()
        for place in range(0, len(text) - 2, 7):  # the last character may hold bits that do not count
            changed = text[:place] + ("A" if text[place] != "A" else "B") + text[place + 1 :]
            with pytest.raises(TokenRefused):
                reader.read(changed)

    @pytest.mark.parametrize(
        ("headers", "reason"), [({"kid": "unknown"}, "key that is not known"), ({}, "by which key")]
    )
    def test_the_key_must_be_named_and_known(self, reader: TokenReader, headers: dict[str, Any], reason: str) -> None:
        with pytest.raises(TokenRefused, match=reason):
            reader.read(foreign(headers=headers))

    @pytest.mark.parametrize(
        "text",
        [
            "",
            ".",
            "..",
            "a.b.c",
            "ä.ö.ü",
            "\x00",
            "x" * 9_000,
            f"{word(b'[' * 5_000)}.e30.e30",
            f"{word(b'[]')}.e30.e30",
            f"{word(json.dumps({'alg': ['HS256'], 'kid': 'a'}).encode())}.e30.e30",
            f"{word(json.dumps({'alg': 'HS256', 'kid': {}}).encode())}.e30.e30",
        ],
    )
    def test_what_is_no_token_is_refused_without_a_fault(self, reader: TokenReader, text: str) -> None:
        with pytest.raises(TokenRefused):
            reader.read(text)


class TestKeyFile:
    def reader_at(self, file: Path, clock: Callable[[], float]) -> TokenReader:
        foreign = KeyFile(file, issuer=ISSUER, clock=clock)
        return TokenReader(MASTERS, audience=AUDIENCE, foreign=foreign, clock=time.time)

    def test_keys_rotate_without_a_restart(self, keys_file: Path) -> None:
        now = [0.0]
        reader = self.reader_at(keys_file, lambda: now[0])
        newer = rsa.generate_private_key(65537, 2048)
        old, new = foreign(), foreign(key=newer, headers={"kid": "newer"})
        assert reader.read(old).client == "coop"
        write(keys_file, [public("RS256"), public("RS256", newer, kid="newer")])
        now[0] += 2
        assert {reader.read(text).client for text in (old, new)} == {"coop"}
        write(keys_file, [public("RS256", newer, kid="newer")])
        now[0] += 2
        assert reader.read(new).client == "coop"
        with pytest.raises(TokenRefused, match="key that is not known"):
            reader.read(old)

    def test_a_file_that_breaks_locks_nobody_out(self, keys_file: Path) -> None:
        now = [0.0]
        reader = self.reader_at(keys_file, lambda: now[0])
        keys_file.write_text('{"keys": [')
        now[0] += 2
        assert reader.read(foreign()).client == "coop"
        keys_file.unlink()
        now[0] += 2
        assert reader.read(foreign()).client == "coop"

    @pytest.mark.parametrize(
        ("key", "problem"),
        [
            ({}, "key 1: has no kid"),
            (public("RS256", kid="swath-1"), "one of Swath's own"),
            (public("RS256", use="enc"), "not for signatures"),
            (public("HS256", os.urandom(31)), "shorter than 32 bytes"),
            (public("RS256", alg="RS512"), "algorithm that is not taken"),
            (public("ES256", ec.generate_private_key(ec.SECP384R1()), alg="ES384"), "algorithm that is not taken"),
            ({"kid": "a", "kty": "RSA"}, "cannot be read"),
            ({**public("ES256"), "d": "AA"}, "is a private key"),
        ],
    )
    def test_a_key_that_cannot_be_used_is_named_when_the_worker_starts(
        self, tmp_path: Path, key: dict[str, Any], problem: str
    ) -> None:
        with pytest.raises(BadInput, match=problem):
            KeyFile(write(tmp_path / "keys.json", [key]), issuer=ISSUER)

    def test_a_short_rsa_key_is_refused(self, tmp_path: Path) -> None:
        short = rsa.generate_private_key(65537, 1024)
        with pytest.raises(BadInput, match="shorter than 2048 bits"):
            KeyFile(write(tmp_path / "keys.json", [public("RS256", short)]), issuer=ISSUER)

    @pytest.mark.parametrize("content", ["", "[]", "{}", '{"keys": {}}', '{"keys": []}', "\x00"])
    def test_a_file_that_is_no_key_set_is_refused(self, tmp_path: Path, content: str) -> None:
        file = tmp_path / "keys.json"
        file.write_text(content)
        with pytest.raises(BadInput, match="SWATH_JWT_KEYS_FILE"):
            KeyFile(file, issuer=ISSUER)

    def test_the_same_kid_twice_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(BadInput, match="key 2: its kid rs256"):
            KeyFile(write(tmp_path / "keys.json", [public("RS256"), public("RS256")]), issuer=ISSUER)
