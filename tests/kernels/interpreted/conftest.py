"""These files run in Triton's interpreter, which must be chosen before the kernels are imported.

`pytest tests` therefore runs them in processes of their own (test_interpreted.py); started with TRITON_INTERPRET=1,
pytest collects them here like any others.
"""

import os
from itertools import groupby
from pathlib import Path
from zlib import crc32

import pytest

HERE = Path(__file__).parent

if os.environ.get("TRITON_INTERPRET") != "1":
    collect_ignore_glob = ["test_*.py"]


def values_of(item: pytest.Item) -> set[tuple[str, str]]:
    """The parameters of a test by name, each with its value."""
    call = getattr(item, "callspec", None)
    return {(name, str(value)) for name, value in call.params.items()} if call else set()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of a grid of parameters a sixth runs in `make test`, and whatever it takes for every value of every parameter to
    be in it; the rest in `make test-all`. The interpreter takes seconds for what a GPU does in microseconds."""
    here = [item for item in items if item.path.parent == HERE and not item.get_closest_marker("slow")]
    for _, same in groupby(here, key=lambda item: (item.path, item.name.partition("[")[0])):
        grid = sorted(same, key=lambda item: crc32(item.name.encode()))
        seen: set[tuple[str, str]] = set()
        for i, item in enumerate(grid):
            if i >= max(1, len(grid) // 6) and values_of(item) <= seen:
                item.add_marker(pytest.mark.slow)
            seen |= values_of(item)
