"""The page on calling the API is true: its examples are run as they stand."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from models.clients import NewKey, create_client
from models.keys import master_keys
from tests.support.api import Api, serving
from tests.support.api_workers import SECRET, TOKEN_PATH, signed_headers
from tests.support.archives import ROOT
from tests.support.facts import engine_for

PAGE = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")


def example(language: str) -> str:
    """The one example in a language."""
    [found] = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    return str(found)


@dataclass(frozen=True)
class Reader:
    """Somebody who tries the page out."""

    api: Api
    api_key: NewKey
    signing_key: NewKey

    def run(self, *command: str, given: str = "") -> str:
        """Run what the page shows, and return what it prints."""
        words = {"API": self.api.url, "KEY": self.api_key.secret}
        words |= {"KEY_ID": self.signing_key.key_id, "SECRET": self.signing_key.secret}
        done = subprocess.run(
            command, input=given, env=os.environ | words, capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout


@pytest.fixture
def reader(database_url: str, redis_url: str) -> Iterator[Reader]:
    engine = engine_for(database_url)
    with engine.begin() as connection:
        masters, scopes = master_keys(SECRET), ("read", "farms:write")
        api_key, signing_key = create_client(
            connection, "our-cloud", scopes=scopes, masters=masters, with_signing_key=True
        )
    engine.dispose()
    with serving(database_url, redis_url) as api:
        yield Reader(api, api_key, signing_key)


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")
def test_curl_and_then_python(reader: Reader) -> None:
    told = reader.run("bash", "-eu", given=example("bash"))
    begins = re.finditer(r'\{"(?:status|type)":"(?:success|processing|FeatureCollection)"', told)
    synced, state, weather, farms = (json.JSONDecoder().raw_decode(told, each.start())[0] for each in begins)
    assert synced["data"]["created"] == 1
    assert (state["status"], state["data"]["status"]) == ("processing", "processing")
    assert weather["status"] == "processing"
    assert [each["properties"]["name"] for each in farms["features"]] == ["North field"]
    assert "day,acquired_at,status,ndvi" in told
    assert reader.run(sys.executable, "-W", "error", "-", given=example("python")).startswith("North field 3.")


def test_php_or_else_its_steps(reader: Reader) -> None:
    source = example("php")
    if shutil.which("php") is not None:
        assert reader.run("php", given=source).splitlines() == ["created", "no pass has been looked at yet"]
        return
    # The same steps in Python, which sign what the page says is signed.
    assert "implode(\"\\n\", ['POST', $path, $time, $nonce, hash('sha256', '')])" in source
    assert "hash_hmac('sha256', $signed, getenv('SECRET'))" in source
    headers = signed_headers(reader.signing_key)
    assert all(f"'{name}: '" in source for name in headers)
    with reader.api.client() as client:
        told = client.post(TOKEN_PATH, headers=headers).json()["data"]
        answer = client.get("/api/v1/farms/", headers={"authorization": f"Bearer {told['access_token']}"})
        assert answer.status_code == httpx.codes.OK


def test_the_page_is_found_from_the_readme_and_names_what_there_is() -> None:
    assert "(docs/api.md)" in (ROOT / "README.md").read_text(encoding="utf-8")
    paths = json.loads((Path(ROOT) / "serving" / "openapi.json").read_bytes())["paths"]
    templates = {re.sub(r"\{\w+\}", "X", path) for path in paths}
    named = {re.sub(r"\$FARM|\$farm", "X", path) for path in re.findall(r"/api/v1/[\w/$.-]*", PAGE)}
    assert {path for path in named if path.strip("/") != "api/v1"} <= templates
