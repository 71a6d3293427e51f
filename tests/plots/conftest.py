"""A maker of results folders with known truths, so that what is drawn can be checked against them."""

import copy
import json
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.case import Case
from bench.case.columns import COLUMNS
from bench.record.stats import ratio_estimate, summarize

OWN = {
    "full": {},
    "lora": {"rank": 8, "alpha": 32.0, "dropout": 0.1, "targets": "all-linear", "adapter_dtype": "bf16"},
    "paca": {"rank": 16, "alpha": 64.0, "targets": "all-linear", "adapter_dtype": "bf16"},
    "bitfit": {"targets": "all-linear", "adapter_dtype": "bf16"},
}
OWN |= dict.fromkeys(("dora", "lora-fa", "qlora"), OWN["lora"] | {"dropout": 0.0}) | {"qpaca": OWN["paca"]}
GPU_RUN = {
    "schema": 1, "run_id": "20250101T000000-abc", "gpu": "NVIDIA H100 80GB HBM3", "gpu_key": "h100",
    "driver": "580.65.06", "torch": "2.13.0", "triton": "3.7.1", "transformers": "5.17.0", "python": "3.11.9",
    "commit": "0123456789abcdef", "dirty": False, "source_hash": "00ff00ff00ff00ff", "clocks_locked": False,
    "invocations": [{
        "started": "2025-01-01T00:00:00.000+00:00", "finished": "2025-01-01T00:06:40.000+00:00",
        "command": "python -m bench run table1", "sweep": {"name": "table1", "text": "axes:\n  level: model\n"},
    }],
}  # fmt: skip
CPU_RUN = GPU_RUN | {"gpu": "Some CPU, 2 cores", "gpu_key": "cpu", "driver": None}

Row = dict[str, Any]


def case(method: str = "full", impl: str = "eager", **axes: object) -> Row:
    """The axes of a case at level model in bf16 at 4 x 512, with those given changed."""
    own = dict.fromkeys(("rank", "alpha", "dropout", "targets", "adapter_dtype")) | OWN[method]
    found = {
        "level": "model", "model": "gpt2-xl", "layer": None, "method": method, "impl": impl, "trainable_layers": "all",
        **own, "precision": "bf16", "batch": 4, "seq": 512, "accumulation": None, "l2": "warm", **axes,
    }  # fmt: skip
    return found | {"case_id": Case(**found).case_id}


class Maker:
    """Gathers rows and samples, then writes them as a results folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[Row] = []
        self.samples: list[Row] = []
        self.run: Row | None = copy.deepcopy(GPU_RUN)

    def timed(
        self, axes: Row, truth_ms: dict[str, float], *, clock: str = "eager", n: int = 40, noise: float = 0.01,
        repeat: int = 0, shift: float = 0.0, **columns: object,
    ) -> None:  # fmt: skip
        """Rows of one measured case; `truth_ms` holds the true median of each pass, the noise is relative.

        Further columns are the same in all rows, or given by pass.
        """
        name = (axes["case_id"], clock, repeat)
        rng = np.random.default_rng(zlib.crc32(repr(name).encode()))
        for pass_, truth in truth_ms.items():
            x = truth * (1 + shift) * np.exp(noise * rng.standard_normal(n))
            ordered, k = np.sort(x), max(0, int(n / 2 - 0.98 * np.sqrt(n)))
            base = dict.fromkeys(COLUMNS) | axes | {"gpu": (self.run or {}).get("gpu"), "run_id": GPU_RUN["run_id"]}
            same = {"repeat": repeat, "process": f"{1000 + repeat}-start", "pass": pass_, "clock": clock}
            self.rows.append(base | same | {
                "median_ms": float(np.median(x)), "ci_low_ms": float(ordered[k]), "ci_high_ms": float(ordered[-1 - k]),
                "min_ms": float(ordered[0]), "n": n, "outliers": 0, "stop": "converged", "noisy": False, "status": "ok",
                "model_dropout": 0.1, "measured_at": "2025-01-01T00:01:00.000+00:00",
            } | {k: v[pass_] if isinstance(v, dict) else v for k, v in columns.items()})  # fmt: skip
            names = {"case_id": axes["case_id"], "run_id": GPU_RUN["run_id"], **same}
            self.samples.append(names | {"samples_ms": [float(v) for v in x]})

    def in_turns(
        self, cases: Sequence[Row], truths_ms: Sequence[dict[str, float]], *, rounds: int = 16, block: int = 3,
        drift: float = 0.3, noise: float = 0.01, repeat: int = 0, clocks: Sequence[str] = ("cpu-time", "cpu"),
        **columns: object,
    ) -> None:  # fmt: skip
        """Rows and samples of cases that took turns, as the runner leaves them: the first is the baseline.

        The machine's speed wanders by `drift` from round to round, alike for all of them. Further columns as those of
        `timed`.
        """
        turns = f"{cases[0]['case_id']}-{repeat}"
        rng = np.random.default_rng(zlib.crc32(turns.encode()))
        speed = np.repeat(1 + drift * np.abs(rng.standard_normal(rounds)), block)
        numbers = [int(i) for i in np.repeat(np.arange(rounds), block)]
        blocks: dict[tuple[str, str], Any] = {}  # the baseline's median of each round
        for i, (axes, truth_ms) in enumerate(zip(cases, truths_ms, strict=True)):
            for clock in clocks:
                self.timed(axes, truth_ms, clock=clock, n=rounds * block, repeat=repeat, **columns)
                new = zip(self.rows[-len(truth_ms) :], self.samples[-len(truth_ms) :], strict=True)
                for (pass_, truth), (row, line) in zip(truth_ms.items(), new, strict=True):
                    x = truth * speed * np.exp(noise * rng.standard_normal(len(speed)))
                    row |= asdict(summarize(x)) | {"rounds": rounds, "beside": "comparison", "threads": 1}
                    row |= {"process": f"{1000 + repeat}-{i}", "ratio_to": cases[0]["case_id"], "noisy": True}
                    row |= {"ratio": 1.0, "ratio_low": 1.0, "ratio_high": 1.0}
                    line |= {"samples_ms": list(map(float, x)), "rounds": numbers, "turns": turns}
                    middles = np.median(x.reshape(rounds, block), axis=1)
                    if i:
                        found = ratio_estimate(series := middles / blocks[pass_, clock])
                        row |= {"ratio": found.value, "ratio_low": found.low, "ratio_high": found.high}
                        line |= {"ratio_to": cases[0]["case_id"], "ratios": list(map(float, series))}
                    else:
                        blocks[pass_, clock] = middles

    def failed(self, axes: Row, status: str, detail: str, clock: str = "eager") -> None:
        """Rows of a case that left no numbers."""
        for pass_ in ("forward", "backward", "forward-backward"):
            base = dict.fromkeys(COLUMNS) | axes | {"gpu": (self.run or {}).get("gpu"), "run_id": GPU_RUN["run_id"]}
            self.rows.append(
                base | {"repeat": 0, "pass": pass_, "clock": clock, "status": status, "detail": detail}
                | {"process": "1000-start", "measured_at": "2025-01-01T00:01:00.000+00:00"}
            )  # fmt: skip

    def write(self) -> Path:
        """Writes rows.jsonl, samples.jsonl and run.json; returns the folder."""
        self.path.mkdir(parents=True, exist_ok=True)
        for name, lines in (("rows.jsonl", self.rows), ("samples.jsonl", self.samples)):
            (self.path / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
        if self.run is not None:
            (self.path / "run.json").write_text(json.dumps(self.run))
        return self.path


FULL_MS = {"gpt2-xl": (40.0, 90.0), "gpt2-medium": (14.0, 29.0), "tinyllama": (26.0, 55.0)}
FACTORS = {
    ("full", "eager"): (1.0, 1.0), ("full", "compile"): (0.82, 0.9), ("lora", "eager"): (1.6, 1.1),
    ("lora", "peft"): (1.72, 1.18), ("lora", "triton"): (1.1, 0.82), ("paca", "eager"): (1.0, 0.78),
    ("paca", "triton"): (1.0, 0.72),
}  # fmt: skip


def fill_table1(
    maker: Maker, types: Iterable[tuple[str, str]], shapes: Iterable[tuple[int, int]], **options: Any
) -> None:
    """Table 1 with true times that grow with the tokens; options go to the axes and to `timed`."""
    axes = options.pop("axes", {})
    for model in options.pop("models", FULL_MS):
        forward, backward = FULL_MS[model]
        for method, impl in types:
            for batch, seq in shapes:
                f, b = FACTORS[method, impl]
                size = 0.1 + 0.9 * batch * seq / 2048
                ms = {"forward": forward * f * size, "backward": backward * b * size}
                one = case(method, impl, **({"model": model, "batch": batch, "seq": seq} | axes))
                extra = {"refresh_ms": 0.31} if method == "paca" else {}
                maker.timed(one, ms | {"forward-backward": sum(ms.values())}, **options, **extra)


PARTS = ("forward", "backward", "forward-backward")
# True launch gap and launches of gpt2-xl by training type; both are the same at every length.
GAPS_MS = {("full", "eager"): (2.0, 1.0), ("lora", "eager"): (31.0, 6.0), ("lora", "triton"): (7.0, 2.0),
           ("paca", "eager"): (5.0, 3.0), ("full", "compile"): (0.5, 0.5), ("lora", "peft"): (35.0, 8.0),
           ("paca", "triton"): (3.0, 1.5)}  # fmt: skip
LAUNCHES = {"full": (925, 1699), "lora": (1885, 2640), "paca": (1200, 1900)}
SIZES = {"gpt2-xl": 1.0, "gpt2-medium": 0.33, "tinyllama": 0.65}


def whole(parts: tuple[float, float]) -> dict[str, float]:
    """(forward, backward) by pass, with their sum."""
    return dict(zip(PARTS, (*parts, sum(parts)), strict=True))


def gpu_truth(method: str, impl: str, model: str, tokens: int) -> dict[str, dict[str, float]]:
    """True times in ms of clocks graph, eager and host, by pass."""
    work = [ms * f * (0.1 + 0.9 * tokens / 2048) for ms, f in zip(FULL_MS[model], FACTORS[method, impl], strict=True)]
    gap = [ms * SIZES[model] for ms in GAPS_MS[method, impl]]
    eager = [a + b for a, b in zip(work, gap, strict=True)]
    return {"graph": whole(tuple(work)), "eager": whole(tuple(eager)), "host": whole((0.9 * eager[0], 0.5 * eager[1]))}


def fill_gpu(
    maker: Maker, types: Iterable[tuple[str, str]], shapes: Iterable[tuple[int, int]], **options: Any
) -> None:  # fmt: skip
    """Table 1 under the clocks of a GPU, with what only a GPU tells; options go to the axes and to `timed`."""
    axes, clocks = options.pop("axes", {}), options.pop("clocks", ("eager", "graph", "host"))
    for model in options.pop("models", FULL_MS):
        for method, impl in types:
            for batch, seq in shapes:
                truth = gpu_truth(method, impl, model, batch * seq)
                truth["device"] = {p: 1.01 * ms for p, ms in truth["graph"].items()}
                one = case(method, impl, **({"model": model, "batch": batch, "seq": seq} | axes))
                flops = whole(tuple(x * SIZES[model] * batch * seq for x in (3.0e9, 6.0e9)))
                launches = whole(tuple(round(x * SIZES[model]) for x in LAUNCHES[method]))
                for clock in clocks:
                    maker.timed(
                        one, truth[clock], clock=clock,
                        **({"launches": launches} if clock == "graph" else {}), flops=flops,
                        floor_ms={p: x / 989e9 for p, x in flops.items()},
                        peak_mib={"full": 24000, "lora": 16000, "paca": 12000}[method] * SIZES[model] + batch * seq,
                        sm_clock_mhz=1755 + len(maker.rows) % 200, power_w=312.5 + len(maker.rows) % 300,
                        temperature_c=41 + len(maker.rows) % 20, **options,
                    )  # fmt: skip


def fill_cpu(maker: Maker, shapes: Sequence[tuple[int, int]] = ((1, 64), (1, 128)), **options: Any) -> None:
    """Table 1 on a CPU, in blocks, with LoRA and PaCA faster than Full-FT; options go to `in_turns`."""
    maker.run = copy.deepcopy(CPU_RUN)
    for model, ms in FULL_MS.items():
        for batch, seq in shapes:
            axes = {"level": "block", "model": model, "batch": batch, "seq": seq, "precision": "fp32", "l2": None}
            factors = ((1.0, 1.0), (1.05, 0.5), (1.0, 0.52))
            truths = [whole((ms[0] * f * seq / 64, ms[1] * b * seq / 64)) for f, b in factors]
            maker.in_turns([case(m, **axes) for m in ("full", "lora", "paca")], truths, **options)


@pytest.fixture
def maker(tmp_path: Path) -> Maker:
    return Maker(tmp_path / "results" / "h100" / "table1")


@pytest.fixture
def make_case() -> Callable[..., Row]:
    return case


@pytest.fixture
def fill_clocks() -> Callable[..., None]:
    return fill_gpu


@pytest.fixture
def fill() -> Callable[..., None]:
    return fill_table1


@pytest.fixture
def fill_turns() -> Callable[..., None]:
    return fill_cpu
