"""The README says what is true."""

from __future__ import annotations

from pathlib import Path

from infra.settings import Settings

ROOT = Path(__file__).parents[2]


def settings_table() -> list[str]:
    """The table of all settings as the README must have it."""
    rows = ["| variable | default | what |", "| --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        default = field.default
        if name == "home":
            shown = "`/var/lib/swath` for root, else `~/.local/share/swath`"
        elif default is None:
            shown = "unset"
        elif isinstance(default, frozenset | tuple):
            shown = (
                "`"
                + ",".join(str(each) for each in (sorted(default) if isinstance(default, frozenset) else default))
                + "`"
            )
        else:
            shown = f"`{str(default).lower() if isinstance(default, bool) else default}`"
        rows.append(f"| `SWATH_{name.upper()}` | {shown} | {field.description} |")
    return rows


def test_the_readme_has_every_setting_with_its_default() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "\n".join(settings_table()) in readme


def test_every_setting_is_explained() -> None:
    assert all(field.description for field in Settings.model_fields.values())
