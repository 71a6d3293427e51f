"""A maker of one board's results folder."""

from pathlib import Path
from typing import Any

import pytest

from tests.plots.boards.made import ONE, TYPES, Board
from tests.plots.conftest import FACTORS, Maker, fill_table1


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Board:
    """A maker of results/<key>/<sweep>, whose LoRA takes `lora` times Full-FT's time."""

    def make(key: str, gpu: str, lora: float = 1.3, sweep: str = "table1", fill: bool = True, **options: Any) -> Maker:
        maker = Maker(tmp_path / "results" / key / sweep)
        assert maker.run
        maker.run |= {"gpu": gpu, "gpu_key": key, "run_id": f"run-of-{key}"}
        maker.run["invocations"][0]["sweep"]["name"] = sweep
        monkeypatch.setitem(FACTORS, ("lora", "eager"), (lora, lora))
        if fill:
            fill_table1(maker, TYPES, [(4, 512)], **({"models": ONE} | options))
        return maker

    return make
