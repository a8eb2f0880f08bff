"""A metrics page, read as Prometheus would."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

Figures = dict[tuple[str, frozenset[tuple[str, str]]], float]
"""Values by name and labels."""


def figures(page: bytes | str) -> Figures:
    """All samples of a page; one that is told twice is an error."""
    text = page.decode() if isinstance(page, bytes) else page
    found: Figures = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            # The parser ends names of counters as newer formats want it.
            name = sample.name if sample.name in text else sample.name.removesuffix("_total")
            key = (name, frozenset(sample.labels.items()))
            assert key not in found, key
            found[key] = sample.value
    return found


def value(of: Figures, name: str, **labels: str) -> float:
    """One value; 0 where it is not told."""
    return of.get((name, frozenset(labels.items())), 0.0)


def label_values(of: Figures, label: str) -> set[str]:
    """All values of a label."""
    return {told for _, labels in of for name, told in labels if name == label}
