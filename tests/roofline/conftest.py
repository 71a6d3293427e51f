"""What the tests of closed forms share."""

import json
from pathlib import Path

import pytest
import torch

from bench.case import shapes
from bench.case.shapes import ModelShape, Projection
from bench.models.inspect import describe
from tests.models.tiny import write_config
from tests.roofline.families import FAMILIES


@pytest.fixture(autouse=True)
def no_autocast_on_meta(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch does not answer whether autocast is on for meta tensors; it never is."""
    real = torch.is_autocast_enabled
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: device != "meta" and real(device))


@pytest.fixture(autouse=True)
def inspect_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shapes that have to be asked of transformers are asked in this process, which has it already."""

    def shape(name: str, path: Path) -> ModelShape:
        found = describe(json.loads(path.read_text()))
        return ModelShape(name=name, projections=tuple(Projection(**p) for p in found.pop("projections")), **found)

    monkeypatch.setattr(shapes, "ask_transformers", shape)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A config.json of each family, by its name here."""
    return {name: write_config(tmp_path_factory.mktemp(name), fields) for name, fields in FAMILIES.items()}


@pytest.fixture(params=FAMILIES)
def model(request: pytest.FixtureRequest, models: dict[str, str]) -> str:
    return models[request.param]
