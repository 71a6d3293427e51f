"""Markers, and assertions of shared modules rewritten as those of tests are."""

import pytest

SHARED = (
    "kernel_correctness", "kernel_cases", "dropout_cases", "group_cases", "sibling_cases", "sibling_gradient_cases",
    "misuse_cases",
)  # fmt: skip
pytest.register_assert_rewrite(*(f"tests.kernels.{name}" for name in SHARED))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: takes more than a few seconds; `make test-all` runs it")
    config.addinivalue_line("markers", "gpu: needs an NVIDIA GPU")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    import torch

    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="no GPU here"))
