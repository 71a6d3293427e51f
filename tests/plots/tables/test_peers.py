"""peers.md, peers.csv and their figure, against numbers worked out here from the same samples."""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plots.data.load import load
from plots.data.panels import make_panels
from plots.data.results import read_results
from plots.report import draw
from plots.tables.peers import mean
from tests.plots.reading import PASSES, cells_of, draw_tables, lines_of, pick, samples, value, words_of

LAYERS = ("self_attn.q_proj", "self_attn.qkv", "mlp.down_proj")
FULL_MS = {"self_attn.q_proj": (1.0, 2.0), "self_attn.qkv": (1.6, 3.1), "mlp.down_proj": (3.0, 5.0)}
# Forward and backward over Full-FT's, one factor a layer.
FACTORS = {
    ("full", "compile"): ((0.9, 0.95, 1.0), (0.8, 0.9, 1.1)),
    ("lora", "eager"): ((1.5, 1.4, 1.2), (1.1, 0.9, 0.8)),
    ("lora", "peft"): ((2.0, 1.9, 1.7), (1.3, 1.2, 0.9)),
    ("lora", "addmm"): ((1.3, 1.2, 1.1), (0.9, 0.8, 0.7)),
    ("paca", "eager"): ((1.1, 1.05, 1.0), (0.7, 0.65, 0.6)),
}


def fill(
    maker: Any, make_case: Callable[..., Any], clocks: tuple[str, ...] = ("eager",), n: int = 40,
    types: Collection[tuple[str, str]] = tuple(FACTORS), **axes: object,
) -> None:  # fmt: skip
    for i, layer in enumerate(LAYERS):
        axes = {"level": "linear", "model": "tinyllama", "l2": "cold", "targets": None, **axes, "layer": layer}
        for clock in clocks:
            slower = 1.3 if clock == "eager" else 1.0
            f, b = (slower * ms for ms in FULL_MS[layer])
            maker.timed(make_case(**axes), whole(f, b), clock=clock, n=n)
            for method, impl in types:
                fs, bs = FACTORS[method, impl]
                own = {} if method == "full" else {"rank": 16, "alpha": 32.0}
                own |= {"dropout": 0.0} if method == "lora" else {}
                maker.timed(make_case(method, impl, **axes, **own), whole(f * fs[i], b * bs[i]), clock=clock, n=n)


def whole(forward: float, backward: float) -> dict[str, float]:
    return {"forward": forward, "backward": backward, "forward-backward": forward + backward}


def samples_of(maker: Any, layer: str, method: str, impl: str, pass_: str, clock: str = "eager") -> np.ndarray:
    return samples(maker, pass_, clock, layer=layer, method=method, impl=impl)


def test_ratios_to_full_and_to_peft(maker: Any, make_case: Any) -> None:
    fill(maker, make_case, ("eager", "graph"), n=160)  # of fewer the interval is wider than a plain bootstrap's
    draw_tables(maker)
    lines = lines_of(maker.path / "peers.csv")
    assert len(lines) == 2 * 3 * 6 * 3, "clock, layer, training type, pass"
    rng = np.random.default_rng(1)
    for clock in ("eager", "graph"):
        for layer in LAYERS:
            for pass_ in ("forward", "backward", "forward-backward"):
                full = samples_of(maker, layer, "full", "eager", pass_, clock)
                peft = samples_of(maker, layer, "lora", "peft", pass_, clock)
                for method, impl in FACTORS:
                    x = samples_of(maker, layer, method, impl, pass_, clock)
                    same = {"clock": clock, "layer": layer, "pass": pass_}
                    line = pick(maker.path / "peers.csv", **same, method=method, impl=impl)
                    assert float(line["ratio_to_full"]) == pytest.approx(np.median(x) / np.median(full))
                    assert float(line["full_ci_low"]) < float(line["ratio_to_full"]) < float(line["full_ci_high"])
                    if method != "lora":
                        assert line["ratio_to_peft"] == line["peft_ci_low"] == ""
                        continue
                    assert float(line["ratio_to_peft"]) == pytest.approx(np.median(x) / np.median(peft))
                    if impl == "addmm":
                        drawn = [np.median(v[rng.integers(0, len(v), (3000, len(v)))], axis=1) for v in (x, peft)]
                        low, high = np.percentile(drawn[0] / drawn[1], (2.5, 97.5))
                        width = float(line["peft_ci_high"]) - float(line["peft_ci_low"])
                        assert 0.5 * (high - low) < width < 2 * (high - low)


def test_the_mean_over_layers_is_the_geometric_one(maker: Any, make_case: Any) -> None:
    fill(maker, make_case)
    draw_tables(maker)
    text = (maker.path / "peers.md").read_text()
    for (method, impl), name in {("lora", "addmm"): "LoRA addmm", ("paca", "eager"): "PaCA eager"}.items():
        for pass_ in PASSES:
            ratios = [
                np.median(samples_of(maker, layer, method, impl, pass_))
                / np.median(samples_of(maker, layer, "full", "eager", pass_))
                for layer in LAYERS
            ]
            cells = cells_of(text, name)
            mean = value(cells[f"Time / Full-FT, {pass_}"])
            assert mean == pytest.approx(np.exp(np.mean(np.log(ratios))), abs=6e-3)
        assert cells["Time / Full-FT, range"] == f"{min(ratios):.2f} to {max(ratios):.2f}"
        assert cells["Layers"] == "3"
    for name, base, told in (
        ("Full-FT eager", "Full-FT", "1"),
        ("LoRA peft", "PEFT", "1"),
        ("PaCA eager", "PEFT", "none"),
    ):
        cells = cells_of(text, name)
        assert [cell for head, cell in cells.items() if head.startswith(f"Time / {base}")] == [told] * 4


def test_the_interval_of_a_mean_is_as_wide_as_the_mean_scatters(tmp_path: Path, make_case: Any, maker: Any) -> None:
    """Over 60 folders of independent noise: 95 % of the means lie within 1.96 standard deviations of the truth."""
    means, halves = [], []
    for i in range(60):
        maker.rows.clear()
        maker.samples.clear()
        fill(maker, make_case, types=[("lora", "addmm")], seq=64 + i)  # another case_id, and so another noise
        maker.path = tmp_path / str(i)
        panel = make_panels(read_results(load(maker.write())))[0]
        found = mean([panel.ratio(c, "forward") for c in panel.cases if c.impl == "addmm"])
        assert found is not None and found.low is not None and found.high is not None
        means.append(found.value)
        halves.append((found.high - found.low) / 2)
    assert np.mean(means) == pytest.approx(np.exp(np.mean(np.log(FACTORS["lora", "addmm"][0]))), abs=1e-3)
    assert 0.75 < np.mean(halves) / (1.96 * np.std(means)) < 1.5


def test_a_ratio_to_peft_needs_equal_axes(maker: Any, make_case: Any) -> None:
    """Another rank, or another length, is no PEFT to compare with; adapters of another dtype are."""
    axes = {"level": "linear", "layer": "square-64", "model": None, "l2": "cold", "targets": None, "dropout": 0.0}
    maker.timed(make_case("lora", "peft", **axes, rank=16), whole(1, 2))
    wide = make_case("lora", "peft-fp32", **axes, rank=16, adapter_dtype="fp32")
    for case, factor in ((wide, 3), (make_case("lora", "eager", **axes, rank=8), 1),
                         (make_case("lora", "addmm", **axes, rank=16, seq=64), 1)):  # fmt: skip
        maker.timed(case, whole(factor, 2 * factor))
    draw_tables(maker)
    lines = [line for line in lines_of(maker.path / "peers.csv") if line["pass"] == "forward-backward"]
    ratios = {line["impl"]: line["ratio_to_peft"] for line in lines}
    assert float(ratios["peft-fp32"]) == pytest.approx(3, rel=0.02)
    assert ratios["eager"] == ratios["addmm"] == ""
    assert "no PEFT" in (maker.path / "peers.md").read_text()


def test_what_has_no_time_is_told_once_with_its_reason(maker: Any, make_case: Any) -> None:
    fill(maker, make_case)
    for layer in LAYERS:
        axes = {"level": "linear", "model": "tinyllama", "l2": "cold", "targets": None, "layer": layer}
        own = {"rank": 16, "alpha": 32.0, "dropout": 0.0}
        maker.failed(make_case("lora", "triton", **axes, **own), "unsupported", "needs a | GPU")
        one = make_case("lora", "bordered", **axes, **own)
        maker.timed(one, {"forward": 1.0}, detail="copies nothing")
        for pass_ in ("backward", "forward-backward"):
            failed = next({**row, "pass": pass_} for row in maker.rows if row["case_id"] == one["case_id"])
            maker.rows.append(failed | {"status": "unsupported", "detail": "forward alone", "median_ms": None})
    maker.failed(make_case("paca", "swap", **axes, rank=16, alpha=32.0), "oom", "no room")
    draw_tables(maker)
    text = (maker.path / "peers.md").read_text()
    assert "- unsupported: LoRA triton, all 3 layers: needs a \\| GPU\n" in text
    assert "- unsupported: LoRA bordered, backward and forward-backward, all 3 layers: forward alone\n" in text
    assert "- oom: PaCA swap, tinyllama mlp.down\\_proj: no room\n".replace("\\", "") in text.replace("\\_", "_")
    assert "- LoRA bordered, forward, all 3 layers: copies nothing\n" in text
    cells = cells_of(text, "LoRA bordered")
    assert [head for head, cell in cells.items() if cell == "unsupported"] == [
        f"Time / {base}, {what}" for base in ("Full-FT", "PEFT") for what in (*PASSES[1:], "range")
    ]
    assert "| LoRA triton |" not in text, "a training type that nothing could run is told of below only"
    by_layer = [line for line in text.splitlines() if "| LoRA bordered |" in line and "tinyllama" in line]
    assert len(by_layer) == 3 and all(line.count("| unsupported | unsupported |") == 2 for line in by_layer)
    line = pick(maker.path / "peers.csv", layer=LAYERS[0], impl="triton", **{"pass": "forward"})
    assert line["detail"] == "needs a | GPU"


def test_what_has_no_time_names_the_passes_of_each_layer(maker: Any, make_case: Any) -> None:
    fill(maker, make_case)
    for layer, timed in zip(LAYERS, ("forward", "backward"), strict=False):
        axes = {"level": "linear", "model": "tinyllama", "l2": "cold", "targets": None, "layer": layer}
        case = make_case("lora", "compile", **axes, rank=16, alpha=32.0, dropout=0.0)
        maker.timed(case, {"forward": 1.0, "backward": 1.0})
        for row in maker.rows:
            if row["case_id"] == case["case_id"] and row["pass"] != timed:
                row.update(status="timeout", detail="too long", median_ms=None)
    draw_tables(maker)
    lines = (maker.path / "peers.md").read_text().replace("\\", "").splitlines()
    told = [line for line in lines if line.startswith("- timeout: LoRA compile")]
    assert len(told) == 2
    for layer, failed, fine in zip(LAYERS, ("backward", "forward"), ("forward", "backward"), strict=False):
        (line,) = (line for line in told if layer in line)
        assert f"LoRA compile, {failed}" in line and f", {fine}," not in line and f"and {fine}" not in line, line


def test_figure_and_report(maker: Any, make_case: Any) -> None:
    fill(maker, make_case, ("eager", "graph"))
    written, _ = draw(load(maker.write()), figures=("peers",))
    names = {path.name for path in written}
    assert {"peers.md", "peers.csv", "peers.png", "peers.svg"} <= names
    assert all(path.exists() for path in written)
    report = (maker.path / "report.md").read_text()
    assert "(peers.png)" in report and "## Layer by layer" in report
    assert "(peers.png)" in (maker.path / "peers.md").read_text()
    note = " ".join(words_of(maker.path / "peers.svg"))
    assert "At 4 x 512" in note and "In bf16, clock eager" in note, "what is constant, in short"
    page = (maker.path / "report.html").read_text()
    assert "Methods and implementations over all layers" in page and "http" not in page.split("<body>")[0]


def test_one_implementation_a_method_makes_no_peers(maker: Any, make_case: Any) -> None:
    """And the files of an earlier drawing, which the rows no longer support, go."""
    axes = {"level": "linear", "layer": "square-64", "model": None, "l2": "cold"}
    maker.timed(make_case(**axes), whole(1, 2))
    maker.timed(make_case("lora", **axes), whole(1, 1))
    maker.path.mkdir(parents=True)
    for name in ("peers.md", "peers.csv", "peers.png"):
        (maker.path / name).write_text("old")
    draw_tables(maker)
    assert not list(maker.path.glob("peers.*"))
    assert "Layer by layer" not in (maker.path / "report.md").read_text()


def test_levels_block_and_model_make_no_peers(maker: Any, fill: Any) -> None:
    fill(maker, [("full", "eager"), ("full", "compile"), ("lora", "eager"), ("lora", "peft")], [(4, 512)])
    draw_tables(maker)
    assert not (maker.path / "peers.md").exists()
