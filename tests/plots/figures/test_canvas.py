"""What is drawn, as the renderer puts it on the canvas: no text outside it, none on another, nothing left out."""

from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.transforms import Bbox

from plots.boards.figure import boards_figure
from plots.boards.side import put_side_by_side
from plots.boards.sorting import find_kin
from plots.data.load import load
from plots.data.panels import MAX_TYPES, Panel, make_panels
from plots.data.predictions import load_predictions
from plots.data.results import read_results
from plots.figures.predicted import predicted_figure
from plots.figures.registry import FIGURES
from tests.conftest import ROOT
from tests.plots.causes import plant
from tests.plots.conftest import FACTORS, FULL_MS, GPU_RUN, SIZES, Maker
from tests.plots.reading import words_of

EVERY = list(FACTORS)
SOME = [("full", "eager"), ("lora", "eager"), ("lora", "triton"), ("paca", "triton")]
LONG = "an-organisation-of-a-long-name/Model-3.1-405B-Instruct-of-a-name-that-is-longer-still"


@pytest.fixture
def texts(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Bbox, tuple[float, float]]]:
    """What the renderer of PNG is given: words of a text, the box around it, and the size of the canvas."""
    found: list[tuple[str, Bbox, tuple[float, float]]] = []
    original = RendererAgg.draw_text

    def draw_text(self: Any, gc: Any, x: Any, y: Any, s: Any, prop: Any, angle: Any, ismath: Any, mtext: Any) -> None:
        if mtext is None:  # one of several lines, whose y is counted from above
            wide, high, below = self.get_text_width_height_descent(s, prop, ismath)
            turned = Bbox.from_bounds(x - high + below, self.height - y, high, wide)
            words, box = s, turned if angle else Bbox.from_bounds(x, self.height - y - below, wide, high)
        else:
            words, box = mtext.get_text(), mtext.get_window_extent(self)
        if s.strip() and (words, box.bounds) not in [(old, its.bounds) for old, its, _ in found]:
            found.append((words, box, (self.width, self.height)))
        original(self, gc, x, y, s, prop, angle, ismath, mtext)

    monkeypatch.setattr(RendererAgg, "draw_text", draw_text)
    return found


def held(name: str, found: list[tuple[str, Bbox, tuple[float, float]]]) -> None:
    """Every text is on the canvas, and no two lie on each other."""
    assert len(found) > 4, name
    for words, box, (width, height) in found:
        assert box.x0 >= -0.5 and box.y0 >= -0.5 and box.x1 <= width + 0.5 and box.y1 <= height + 0.5, (name, words)
    for (words, box, _), (other, its, _) in combinations(found, 2):
        both = Bbox.intersection(box, its)
        area = both.width * both.height if both else 0.0
        assert area <= 0.1 * min(box.width * box.height, its.width * its.height), (name, words, other)


def figures_of(folder: Path, out: Path, texts: list[Any]) -> Iterator[tuple[str, Panel, list[str]]]:
    """(stem, panel, texts) of every figure of a folder, each held to the rules above; drawn elsewhere."""
    panels = make_panels(read_results(load(folder)))
    for stem, figure in FIGURES.items():
        for panel in panels:
            texts.clear()
            if panel.clock == panels[0].clock and figure(panel, out / stem):
                held(stem, texts)
                yield stem, panel, words_of(out / f"{stem}.svg")
                break


def long_models(maker: Any, fill: Any) -> None:
    models = (LONG, f"{LONG}-2")
    with pytest.MonkeyPatch.context() as patch:
        for name in models:
            patch.setitem(FULL_MS, name, (40.0, 90.0))
            patch.setitem(SIZES, name, 1.0)
        fill(maker, EVERY, [(4, 512)], models=models)
        other = {"trainable_layers": "upper-3/4", "rank": 24}
        fill(maker, [("paca", "triton")], [(4, 512)], models=models, axes=other)


def single_layers(maker: Any, fill: Any) -> None:
    for layer in range(9):
        axes = {"level": "linear", "layer": f"block.0.feed_forward.projection_{layer}", "l2": "cold"}
        fill(maker, SOME, [(4, 512)], models=("gpt2-xl",), axes=axes)


def full_board(maker: Any, fill: Any) -> None:
    fill(maker, EVERY, [(4, 512), (4, 1024)], noise=0.3)
    maker.run["memory_mib"] = 24 * 1024


def one_model(maker: Any, fill: Any) -> None:
    fill(maker, EVERY, [(4, 512)], models=("gpt2-xl",))
    maker.run["memory_mib"] = 81559


def every_length(maker: Any, fill: Any) -> None:
    fill(maker, SOME, [(b, s) for b in (1, 4) for s in (128, 512, 1024, 2048)], models=("gpt2-xl", "tinyllama"))


@pytest.mark.parametrize(
    ("fill", "stems"),
    [
        (full_board, {"memory", "split", "ratio", "throughput"}),
        pytest.param(one_model, {"memory", "split", "ratio", "throughput"}, marks=pytest.mark.slow),
        (long_models, {"memory", "split", "ratio", "throughput"}),
        (single_layers, {"split", "layers", "peers"}),
        pytest.param(every_length, {"memory", "split", "throughput", "lengths", "grid"}, marks=pytest.mark.slow),
    ],
)
def test_no_text_leaves_the_canvas_or_lies_on_another(
    fill: Callable[..., None], stems: set[str], maker: Any, fill_clocks: Any, texts: list[Any], tmp_path: Path
) -> None:
    fill(maker, fill_clocks)
    seen = set()
    for stem, panel, words in figures_of(maker.write(), tmp_path, texts):
        seen.add(stem)
        all_words = " ".join(words)
        types = panel.compared_types if stem in ("ratio", "layers", "peers", "grid") else panel.types
        assert all(type_ in all_words for type_ in types[:MAX_TYPES]), (stem, "every training type is named")
    assert stems <= seen


@pytest.mark.parametrize("name", ["table1", "table2", "peers"])
def test_nor_in_the_reference_folders(name: str, texts: list[Any], tmp_path: Path) -> None:
    drawn = {stem: words for stem, _, words in figures_of(ROOT / "results/cpu/reference" / name, tmp_path, texts)}
    assert set(drawn) >= {"table1": {"ratio", "causes"}, "table2": {"steps"}, "peers": {"peers"}}[name]
    if name == "table2":
        types = ["LoRA eager", "LoRA peft", "PaCA eager"]
        types += [f"{part} {of} eager" for part in ("Three Quarters", "Upper Half") for of in ("LoRA", "PaCA")]
        assert {*types, "optimizer", "refresh", "forward x 4"} <= {*drawn["steps"]}
        order = [words for words in drawn["steps"] if words in types]
        assert [words.split()[0] for words in order[-4:]] == ["Three", "Three", "Upper", "Upper"], "neighbours"
    if name == "table1":
        assert "← faster slower →" in drawn["ratio"]


def test_nor_in_predictions(texts: list[Any], tmp_path: Path) -> None:
    from bench.commands.predict.command import predict
    from bench.commands.predict.request import Request
    from tests.predict.made_up_traces import made_up_trace

    out = tmp_path / "predicted"
    where = ("impl=eager,peft-fp32",)
    assert predict(Request("a100,h100", where=where, out=out, host_us="12.5"), made_up_trace) == 0
    found = load_predictions(out)
    assert predicted_figure(found, found.clocks[0], tmp_path / "figure")
    held("predicted", texts)
    assert {"LoRA eager", "LoRA peft-fp32", "PaCA eager"} <= {*words_of(tmp_path / "figure.svg")}


@pytest.mark.parametrize("fill", [full_board, single_layers], ids=["models", "layers"])
def test_nor_by_ten_boards_of_which_some_failed(
    fill: Callable[..., None], fill_clocks: Any, texts: list[Any], tmp_path: Path
) -> None:
    folders = []
    for i in range(10):
        maker = Maker(tmp_path / f"node-{i}" / "table1")
        maker.run = GPU_RUN | {"gpu": "NVIDIA RTX PRO 6000 Blackwell" if i % 2 else f"NVIDIA A{i}"}
        fill(maker, fill_clocks)
        kept = [r for r in maker.rows if i != 2 or r["seq"] == 512]
        maker.rows = [r | {"median_ms": None, "status": "oom"} if i and r["impl"] == "triton" else r for r in kept]
        maker.rows[0]["temperature_c"] += i  # else one would be the copy of another
        folders.append(load(maker.write()))
    (kin,), _ = find_kin(folders)
    (side,) = put_side_by_side({name: read_results(folder) for name, folder in kin.folders.items()})
    texts.clear()
    assert boards_figure(kin, side, tmp_path / "boards")
    held("boards", texts)
    words = words_of(tmp_path / "boards.svg")
    assert {*kin.folders} <= {*words} and "RTX PRO 6000 Blackwell (node-9)" in words and "LoRA triton: oom" in words


def test_the_causes_of_many_types(maker: Any, fill: Any, texts: list[Any], tmp_path: Path) -> None:
    fill(maker, EVERY, [(4, 512)])
    plant_folder = maker.write()
    plant(maker)
    seen = {stem for stem, _, _ in figures_of(plant_folder, tmp_path, texts)}
    assert {"causes", "waterfall", "ratio"} <= seen and "memory" not in seen, "without a peak there is no such figure"


def test_time_against_memory_tells_the_limit_and_what_did_not_fit(
    maker: Any, fill_clocks: Any, make_case: Any, texts: list[Any], tmp_path: Path
) -> None:
    full_board(maker, fill_clocks)
    maker.failed(make_case("lora", "addmm"), "oom", "no room")
    figures = {stem: words for stem, _, words in figures_of(maker.write(), tmp_path, texts)}
    assert next(iter(figures)) == "memory"
    assert "this GPU has 24 GiB" in figures["memory"] and "out of memory: LoRA addmm" in figures["memory"]


def test_the_same_data_yield_the_same_bytes(maker: Any, fill_clocks: Any, tmp_path: Path) -> None:
    one_model(maker, fill_clocks)
    panel = make_panels(read_results(load(maker.write())))[0]
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        assert FIGURES["memory"](panel, tmp_path / name / "memory")
    for kind in ("png", "svg"):
        assert (tmp_path / f"first/memory.{kind}").read_bytes() == (tmp_path / f"second/memory.{kind}").read_bytes()
    assert (tmp_path / "first/memory.svg").read_text().count("<text") > 20, "words as text, to be searched and read"
