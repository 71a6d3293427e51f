"""Published timings as rows for the fit, from a folder that is not part of this project."""

import json
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from bench.errors import UserError
from bench.predict.boards import MemoryKind

GRID = {
    "A100-SXM4-80GB": "a100",
    "H100-SXM5-80GB": "h100",
    "H200-SXM-141GB": "h200",
    "L40S": "l40s",
    "B200-SXM": "b200",
    "RTX-PRO-6000-server": "rtxpro6000-server",
}
# Where a source leaves the form factor open, its documents' word or the more common one.
_MODELS = {
    "A100-80GB (SXM/NC96ads per docs: AMBIGUOUS)": "a100",
    "H100-80GB (SXM per docs: AMBIGUOUS)": "h100",
    "A40": "a40",
    "RTX-A6000": "a6000",
    "RTX-3090": "rtx3090",
    "RTX-4090": "rtx4090",
    "RTX-PRO-6000": "rtxpro6000",
}
# Without the RTX PRO 6000 Workstation's: one submission, 20 % below those of the Server edition, so under a limit.
_SQUARES = {
    "A40": "a40",
    "A100-PCIE-40GB": "a100-pcie-40gb",
    "NVIDIA A100-PCIE-40GB": "a100-pcie-40gb",
    "NVIDIA A100 SXM4 80GB": "a100",
    "H100-PCIe": "h100-pcie",
    "NVIDIA H100 PCIe": "h100-pcie",
    "H100-SXM5-80GB (HBM3)": "h100",
    "NVIDIA H100 80GB HBM3": "h100",
    "NVIDIA H200": "h200",
    "NVIDIA B200 180GB": "b200",
    "NVIDIA L40S": "l40s",
    "NVIDIA RTX A6000": "a6000",
    "NVIDIA GeForce RTX 3090": "rtx3090",
    "NVIDIA GeForce RTX 3090 24GB": "rtx3090",
    "NVIDIA RTX 3090 24GB": "rtx3090",
    "RTX-4090": "rtx4090",
    "NVIDIA GeForce RTX 4090": "rtx4090",
    "NVIDIA RTX 4090 24GB": "rtx4090",
    "NVIDIA GeForce RTX 4090 24GB": "rtx4090",
    "RTX-5090": "rtx5090",
    "NVIDIA GeForce RTX 5090": "rtx5090",
    "NVIDIA RTX 5090 32GB": "rtx5090",
    "RTX-PRO-6000-Server": "rtxpro6000-server",
    "NVIDIA RTX PRO 6000 Blackwell Server Edition": "rtxpro6000-server",
}
_MEMORY = {
    **_MODELS,
    "NVIDIA A100-SXM4-80GB": "a100",
    "H100-SXM5-80GB": "h100",
    "H100-SXM5-80GB (HBM3)": "h100",
    "H100-PCIe-80GB": "h100-pcie",
    "NVIDIA A100-PCIE-40GB": "a100-pcie-40gb",
    "NVIDIA A100 80GB PCIe": "a100-80gb-pcie",
}
_KINDS: dict[MemoryKind, tuple[str, ...]] = {
    "elementwise": ("add", "addu", "div", "divu", "mul", "mulu", "gelu", "relu", "tanh", "mlp_act", "act_fn",
                    "aten::add", "aten::add_", "aten::div", "aten::mul", "aten::silu", "aten::sigmoid", "aten::neg"),
    "norm": ("ln", "input_layernorm", "layernorm", "aten::native_layer_norm"),
    "softmax": ("softmax",),
    "reduction": ("aten::mean", "aten::linalg_norm"),
    "copy": ("aten::copy_",),
    "gather": ("embedding",),
}  # fmt: skip
_ENGINES = "vidur|LLMServingSim"
_LEAST_BYTES = 1e6  # below, a row shows the launch
_LEAST_RATE = 1e5  # bytes a microsecond; below lie copies to and from the host
_LEAST_BYTES_OF_EVENTS = 8e7  # NeuSight's, which show the host below


def grid(folder: Path) -> dict[str, pd.DataFrame]:
    """bf16 GEMMs by board: m, n, k and us, the median of the serving stacks that timed the shape."""
    rows = _read(folder, "gemm_bf16_grid_aiconfigurator.csv", "m", "n", "k")
    rows["us"] = rows.value * 1e3
    return {key: rows[rows.gpu == gpu].groupby(["m", "n", "k"]).us.median().reset_index() for gpu, key in GRID.items()}


def model_shapes(folder: Path) -> dict[str, pd.DataFrame]:
    """16-bit projections inside serving engines by board, from 512 tokens: m, n, k, us. Below lie launch gaps."""
    rows = _read(folder, "gemm_model_shapes.csv", "m", "n", "k")
    rows["us"] = rows.value * 1e3
    return _by_board(rows[rows.m >= 512], _MODELS, ["m", "n", "k", "us"])


def fp32(folder: Path) -> dict[str, pd.DataFrame]:
    """Products in fp32 on the ordinary cores by board, from 512 rows: m, n, k, us."""
    rows = _read(folder, "gemm_fp32_neusight.csv", "m", "n", "k")
    rows = rows[(rows.m >= 512) & (rows.n >= 256) & (rows.k >= 256)].assign(us=lambda r: r.value * 1e3)
    return _by_board(rows, {**_MEMORY, "NVIDIA H100 80GB HBM3": "h100"}, ["m", "n", "k", "us"])


def squares(folder: Path) -> dict[str, pd.DataFrame]:
    """16-bit squares by board: m, from 2048, and us; m is 0 in a database's rows, where tflops is the best of many."""
    rows = _read(folder, "gemm_squares_community.csv", "m", "dtype", "unit")
    rows = rows[rows.dtype.isin(["bf16", "fp16"]) & (rows.unit == "TFLOP/s")]
    rows = rows.assign(m=pd.to_numeric(rows.m, errors="coerce").fillna(0), tflops=rows.value.astype(float))
    return _by_board(rows[(rows.m == 0) | (rows.m >= 2048)], _SQUARES, ["m", "tflops"])


def memory(folder: Path, engines: bool = False) -> dict[str, pd.DataFrame]:
    """torch's memory-bound kernels by board: kind, bytes, us. Their bytes are the least that they can move.

    engines: the serving engines' own kernels in their stead, which are others, and in part rounded to 1 us.
    """
    rows = _read(folder, "memory_bound.csv", "op", "shape", "dtype", "method", "pass", "unit", "bytes", "source")
    rows = rows[rows.unit.isin(["ms", "us"]) & ~rows.dtype.astype(str).str.contains("double|long|int")]
    rows["us"] = rows.value.astype(float) * rows.unit.map({"ms": 1e3, "us": 1.0})
    looked_up = (rows.op == "embedding") & (rows.method == "huggingface") & (rows["pass"] == "forward")
    rows.loc[looked_up, "bytes"] = rows["shape"][looked_up].map(_looked_up_bytes)
    fp32 = _read(folder, "memory_bound_fp32_neusight.csv", "op", "dtype", "bytes", "source")
    fp32 = fp32[fp32.bytes > _LEAST_BYTES_OF_EVENTS].assign(us=fp32.value * 1e3)
    both = pd.concat([rows[rows.bytes > _LEAST_BYTES], fp32])
    both["kind"] = both.op.map({op: kind for kind, ops in _KINDS.items() for op in ops})
    both.loc[(both.kind == "elementwise") & both["shape"].fillna("").map(_broadcasts), "kind"] = "broadcast"
    both.loc[(both.kind == "copy") & both.dtype.fillna("").map(_converts), "kind"] = "cast"
    both = both[(both.bytes / both.us > _LEAST_RATE) & (both.source.str.contains(_ENGINES) == engines)]
    return _by_board(both[both.kind.notna()], _MEMORY, ["kind", "bytes", "us"])


def _looked_up_bytes(shape: str) -> float:
    """What an embedding in fp32 reads and writes, of a shape as in 'V=1024; {"B": 32, "T": 512, "D": 768}'."""
    sizes = json.loads(shape.partition("; ")[2])
    return float(2 * 4 * sizes["B"] * sizes["T"] * sizes["D"])


def _broadcasts(shape: str) -> bool:
    """Whether operands of a traced operator, as in '(4, 8) [[4, 8], [1, 8], []]', are tensors of different sizes."""
    sizes = [math.prod(map(int, dims.split(", "))) for dims in re.findall(r"\[(\d[\d, ]*)\]", shape)]
    return len({size for size in sizes if size > 1}) > 1


def _converts(dtypes: str) -> bool:
    """Whether a traced copy, of dtypes as in "('float', 'c10::BFloat16')", is into another type."""
    return len(set(re.findall(r"'([^']+)'", dtypes))) > 1


def _by_board(rows: pd.DataFrame, keys: dict[str, str], columns: list[str]) -> dict[str, pd.DataFrame]:
    rows = rows.assign(key=rows.gpu.map(keys))
    return {str(key): part[columns].reset_index(drop=True) for key, part in rows.groupby("key")}


def read_table(folder: Path, name: str, columns: Iterable[str], where: str, **how: Any) -> pd.DataFrame:
    """A file of published timings. columns: that it must have; where: which folder has such a file; how: as pandas has
    it. Raises UserError for a file that is missing or is not that one."""
    path, again = folder / name, "Copy the folder of published timings again."
    if not path.is_file():
        raise UserError(f"{path}: not there. {where}")
    try:
        rows = pd.read_csv(path, **how)
    except (OSError, ValueError) as e:  # pandas' errors of parsing are ValueErrors, as those of UTF-8
        raise UserError(f"{path}: not CSV ({str(e).splitlines()[0]}). {again}") from None
    if missing := [c for c in columns if c not in rows]:
        raise UserError(f"{path}: no column {', '.join(missing)}. {again}")
    return rows


def _read(folder: Path, name: str, *more: str) -> pd.DataFrame:
    where = "The fit reads the published timings of the folder that it is given."
    return read_table(folder, name, ("gpu", "value", *more), where)
