"""One thread, small models, and a place to register an implementation."""

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from bench.methods.method import Impl
from bench.methods.registry import methods
from tests.correctness.planted import FIELDS
from tests.models.tiny import write_config


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    return {family: write_config(folder, fields) for family, fields in FIELDS.items()}


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Callable[..., Any]], str]:
    """Registers apply(model, case) as an impl of a method, and returns the impl's name."""

    def register(method: str, apply: Callable[..., Any]) -> str:
        module: Any = ModuleType("planted_fault")
        module.apply = apply
        monkeypatch.setitem(sys.modules, "planted_fault", module)
        monkeypatch.setitem(methods()[method].impls, "planted", Impl("wrong on purpose", module="planted_fault"))
        return "planted"

    return register
