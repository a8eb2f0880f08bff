"""The example of alert rules speaks of figures that there are."""

from __future__ import annotations

import re
from typing import Any

import yaml

from tests.support.archives import ROOT

RULES = ROOT / "infra/deploy/prometheus/swath-rules.yml"


def rules() -> list[dict[str, Any]]:
    found = yaml.safe_load(RULES.read_text(encoding="utf-8"))
    return [rule for group in found["groups"] for rule in group["rules"]]


def test_every_rule_asks_for_figures_that_the_page_has() -> None:
    told = "".join((ROOT / "serving" / name).read_text(encoding="utf-8") for name in ("metrics.py", "standing.py"))
    for rule in rules():
        for name in re.findall(r"swath_\w+", rule["expr"]):
            family = re.sub(r"_(count|bucket|sum)$", "", name)
            assert f'"{name}"' in told or f'"{family}"' in told, f"{rule['alert']}: {name}"


def test_every_rule_says_what_is_wrong_and_how_urgent_it_is() -> None:
    assert {rule["labels"]["severity"] for rule in rules()} == {"page", "ticket"}
    assert all(rule["annotations"]["summary"] for rule in rules())
    names = [rule["alert"] for rule in rules()]
    assert len(set(names)) == len(names)
