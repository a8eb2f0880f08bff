from __future__ import annotations

import hashlib

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from models.errors import BadInput
from models.keys import (
    API_KEY_CHARACTERS,
    master_keys,
    new_api_key,
    new_prefix,
    parse_api_key,
    parse_signing_key_id,
    signing_key_id,
    signing_secret,
)

ONE, OTHER = "one secret of thirty-two characters", "other secret of thirty-two characters"


def test_what_is_derived_is_hkdf() -> None:
    [master] = master_keys(ONE).keys
    theirs = HKDF(SHA256(), 32, salt=b"swath master secret v1", info=b"a purpose").derive(ONE.encode())
    assert master.derive("a purpose") == theirs


def test_each_purpose_and_each_master_has_a_secret_of_its_own() -> None:
    keys = master_keys(f"{ONE}, {OTHER}")
    derived = {key.derive(purpose) for key in keys.keys for purpose in ("one", "other")}
    assert len(derived) == 4
    assert keys.newest.id != keys.keys[1].id
    assert keys.find(keys.keys[1].id) is keys.keys[1]
    assert keys.find("other") is None


def test_no_secret_is_shown_by_repr() -> None:
    keys = master_keys(ONE)
    parsed = parse_api_key(new_api_key(new_prefix()))
    assert parsed is not None
    for value in (keys, keys.newest, parsed):
        assert "digest" not in repr(value)
        assert "root" not in repr(value)


@pytest.mark.parametrize("secret", ["", " , ", "short", f"{ONE},short", ",".join([ONE + str(n) for n in range(5)])])
def test_master_secrets_that_are_too_short_or_too_many_are_refused_and_not_repeated(secret: str) -> None:
    with pytest.raises(BadInput, match="SWATH_SECRET_KEY") as refused:
        master_keys(secret)
    assert ONE not in str(refused.value)


def test_an_api_key_is_found_by_its_prefix_and_matched_by_its_digest() -> None:
    prefix = new_prefix()
    key = new_api_key(prefix)
    parsed = parse_api_key(key)
    assert parsed is not None
    assert (len(key), parsed.prefix) == (API_KEY_CHARACTERS, prefix)
    assert parsed.digest == hashlib.sha256(key.encode()).digest()
    assert new_api_key(prefix) != key


@given(st.text(max_size=80))
def test_other_text_is_no_key(text: str) -> None:
    assert parse_api_key(text) is None
    assert parse_signing_key_id(text) is None


def test_a_signing_key_is_named_by_its_prefix_and_its_secret_needs_no_decoding() -> None:
    keys = master_keys(ONE)
    prefix = new_prefix()
    assert parse_signing_key_id(signing_key_id(prefix)) == prefix
    secret = signing_secret(keys.newest, prefix)
    assert (len(secret), secret) == (43, signing_secret(master_keys(ONE).newest, prefix))
    assert signing_secret(keys.newest, new_prefix()) != secret
