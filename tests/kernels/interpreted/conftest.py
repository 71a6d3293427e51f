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


def fast_ones(grid: list[pytest.Item]) -> list[pytest.Item]:
    """A sixth of a grid, and what it takes besides for every value of every parameter to be among them."""
    left, chosen, seen = list(grid), list[pytest.Item](), set[tuple[str, str]]()

    def new_values(item: pytest.Item) -> tuple[int, int]:
        return len(values_of(item) - seen), crc32(item.name.encode())

    while left:
        item = max(left, key=new_values)
        if len(chosen) >= max(1, len(grid) // 6) and values_of(item) <= seen:
            break
        left.remove(item)
        chosen.append(item)
        seen |= values_of(item)
    return chosen


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of a grid of parameters the fast ones run in `make test`, the rest in `make test-all`: the interpreter takes
    seconds for what a GPU does in microseconds."""
    here = [item for item in items if item.path.parent == HERE and not item.get_closest_marker("slow")]
    for _, same in groupby(here, key=lambda item: (item.path, item.name.partition("[")[0])):
        grid = list(same)
        fast = fast_ones(grid)
        for item in grid:
            if item not in fast:
                item.add_marker(pytest.mark.slow)
