"""These files run over the stub driver, in a process that test_stub_driver.py starts."""

import os
from collections.abc import Iterator

import pytest

if os.environ.get("STUB_DRIVER") == "1":
    from tests.kernels.stub_driver import pretended_gpus

    pretended_gpus.install()
else:
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(autouse=True)
def small_tiles() -> Iterator[None]:
    """Of which small shapes have several; they compile in a fraction of the time."""
    from kernels.runtime.dispatch import using_tiles
    from kernels.runtime.tile_tables import INTERPRETED

    with using_tiles(INTERPRETED):
        yield
