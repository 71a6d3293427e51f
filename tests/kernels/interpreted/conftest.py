"""These files run in Triton's interpreter, which must be chosen before the kernels are imported.

`pytest tests` therefore runs them in a process of their own (test_interpreted.py); started with TRITON_INTERPRET=1,
pytest collects them here like any others.
"""

import os
from collections import Counter
from pathlib import Path
from zlib import crc32

import pytest

HERE = Path(__file__).parent

if os.environ.get("TRITON_INTERPRET") != "1":
    collect_ignore_glob = ["test_*.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of the large grids a third runs in `make test`, chosen by name, so that every value of every parameter stays in
    it; the rest in `make test-all`. The interpreter takes seconds for what a GPU does in microseconds."""
    here = [item for item in items if item.path.parent == HERE]
    sizes = Counter(item.name.partition("[")[0] for item in here)
    for item in here:
        if sizes[item.name.partition("[")[0]] >= 12 and crc32(item.name.encode()) % 3:
            item.add_marker(pytest.mark.slow)
