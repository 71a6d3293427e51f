"""MMLU's subjects and the four categories that the paper's Table 2 reports."""

from functools import cache
from pathlib import Path

from bench.yamlfile import load_yaml

CATEGORIES = ("humanities", "stem", "social sciences", "other")  # in the order of Table 2


@cache
def category_table() -> dict[str, tuple[str, ...]]:
    """subjects.yaml: each category's subjects."""
    read = load_yaml(Path(__file__).parent / "subjects.yaml").value
    return {category: tuple(read[category]) for category in CATEGORIES}


@cache
def category_of() -> dict[str, str]:
    """The category of each of the 57 subjects."""
    return {subject: category for category, subjects in category_table().items() for subject in subjects}
