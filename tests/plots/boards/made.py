"""Results folders of one sweep on several boards, and what is drawn over them."""

from collections.abc import Callable
from pathlib import Path

from plots.__main__ import main
from plots.boards.report import draw_boards
from plots.boards.sorting import find_kin
from plots.data.load import load
from tests.plots.conftest import Maker

TYPES = [("full", "eager"), ("lora", "eager"), ("paca", "eager")]
ONE = ("gpt2-xl",)
DRAWN = {f"boards.{kind}" for kind in ("md", "html", "csv", "png", "svg")}

Board = Callable[..., Maker]


def draw(*folders: object, out: Path | None = None) -> int:
    return main([*map(str, folders), *(["--out", str(out)] if out else [])])


def page_of(*makers: Maker) -> str:
    """boards.md of what these makers hold, without the reports of the folders, which take longer."""
    (kin,), _ = find_kin([load(maker.write()) for maker in makers])
    draw_boards(kin.place, kin)
    return (kin.place / "boards.md").read_text()
