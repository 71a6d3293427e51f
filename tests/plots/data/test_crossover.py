"""Where a training type overtakes Full-FT: the line lies between the right cells; what is undecided says nothing."""

from typing import Any

import pytest

from plots.data.crossover import Edge, Map, crossover_maps
from plots.data.load import load
from plots.data.panels import make_panels
from plots.data.results import read_results
from plots.report import draw
from plots.text.crossover import NONE
from tests.plots.reading import section

# LoRA's true ratio by batch and length; 1.0 with noise is undecided by its interval.
PLANTED = {1: {128: 1.6, 256: 1.3, 512: 1.1}, 2: {128: 1.3, 256: 1.1, 512: 0.9}, 4: {128: 1.0, 256: 0.9, 512: 0.8}}


def _fill(maker: Any, make_case: Any, planted: dict[int, dict[int, float]]) -> None:
    for batch, line in planted.items():
        for seq, ratio in line.items():
            for method, ms in (("full", 100.0), ("lora", 100.0 * ratio)):
                maker.timed(make_case(method, batch=batch, seq=seq), {"forward-backward": ms}, noise=0.02)


def _map(maker: Any) -> Map:
    (panel,) = make_panels(read_results(load(maker.write())))
    return crossover_maps(panel)["gpt2-xl", "LoRA eager"]


def test_the_line_lies_between_cells_on_either_side_of_1(maker: Any, make_case: Any) -> None:
    _fill(maker, make_case, PLANTED)
    found = _map(maker)
    assert (found.batches, found.lengths) == ([1, 2, 4], [128, 256, 512])
    undecided = [(i, j) for i, line in enumerate(found.ratios) for j, r in enumerate(line) if r and not r.decided]
    assert undecided == [(2, 0)]
    sure = {(e.start, e.end) for e in found.edges if e.sure}
    assert sure == {((1.5, 0.5), (1.5, 1.5)), ((1.5, 0.5), (2.5, 0.5)), ((0.5, 1.5), (1.5, 1.5))}
    unsure = [e for e in found.edges if not e.sure]
    assert unsure in ([Edge((-0.5, 1.5), (0.5, 1.5), False)], [Edge((0.5, 1.5), (0.5, 2.5), False)])


def test_the_sentence_is_of_decided_cells_alone(maker: Any, make_case: Any) -> None:
    _fill(maker, make_case, PLANTED)  # slower at 128 to 512 tokens, faster from 1024 on; undecided at 512
    maker.failed(make_case("lora", "peft", batch=1, seq=128), "oom", "CUDA out of memory")
    draw(load(maker.write()), figures=())
    text = section((maker.path / "report.md").read_text(), "## Crossover")
    told = "LoRA eager is slower than Full-FT eager below about 720 tokens, faster above (between 512 and 1,024; 8 of 9"
    assert told in text
    assert "LoRA peft is nowhere told apart" in text


@pytest.mark.parametrize(
    ("ratios", "told"),
    [
        ((1.3, 1.2, 1.4, 1.2), "slower than Full-FT eager in every decided cell (4 of 4"),
        ((0.8, 1.0, 0.7, 0.9), "faster than Full-FT eager in every decided cell (3 of 4"),
        ((0.8, 0.8, 0.8, 1.2), "faster than Full-FT eager below about 360 tokens, slower above (between 256 and 512"),
        ((1.2, 0.8, 1.2, 0.8), "slower than Full-FT eager in 2 cells and faster in 2, and the number of tokens alone"),
        ((1.0, 1.0, 1.0, 1.0), "nowhere told apart from Full-FT eager (0 of 4"),
    ],
)
def test_other_outcomes(maker: Any, make_case: Any, ratios: tuple[float, ...], told: str) -> None:
    a, b, c, d = ratios
    _fill(maker, make_case, {1: {128: a, 256: b}, 2: {128: c, 256: d}})
    draw(load(maker.write()), figures=())
    assert told in section((maker.path / "report.md").read_text(), "## Crossover")


def test_one_batch_is_no_map(maker: Any, make_case: Any) -> None:
    _fill(maker, make_case, {1: {128: 1.2, 256: 0.8}})
    draw(load(maker.write()), figures=())
    assert NONE in (maker.path / "report.md").read_text()


def test_a_ratio_too_wide_to_be_a_result_is_undecided(maker: Any, make_case: Any) -> None:
    for seq in (128, 256):
        for batch in (1, 2):
            for method, ms in (("full", 100.0), ("lora", 300.0)):
                maker.timed(make_case(method, batch=batch, seq=seq), {"forward-backward": ms}, noise=0.9, n=8)
    assert not any(r and r.decided for line in _map(maker).ratios for r in line)
