"""Quiet transformers, and one thread: the tensors here are so small that more threads only wait for one another."""

from collections.abc import Iterator

import pytest
import torch
import transformers


@pytest.fixture(autouse=True, scope="package")
def quiet_and_alone() -> Iterator[None]:
    before, verbosity = torch.get_num_threads(), transformers.logging.get_verbosity()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    yield
    torch.set_num_threads(before)
    transformers.logging.set_verbosity(verbosity)
    transformers.logging.enable_progress_bar()
