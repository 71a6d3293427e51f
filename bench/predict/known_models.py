"""Which published timings of whole models can be predicted, and as what: their conditions as a case and its changes.

The rows are model_level.csv of a folder of published timings that is not part of this project. A row is predicted only
where its conditions are stated and can be expressed here; every other one is left out with the condition that it lacks.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from bench.case import Case
from bench.errors import UserError, short
from bench.files import replace_file
from bench.predict.boards import Board, board
from bench.predict.configs import CONFIGS, config_text
from bench.predict.published import read_table

# What differs from this project's own way of running a model; bench/predict/changes.py carries it out.
Change = Literal["recompute", "plain attention", "no loss", "no head"]

_COLUMNS = ("gpu", "n_gpus", "model", "method", "dtype", "batch", "seq", "grad_ckpt", "what", "value", "unit",
            "source", "note")  # fmt: skip

# A source that leaves the form factor of an A100 open: the more common one, as the fit of the boards takes it.
_BOARDS = {
    "A100-80GB": "a100",
    "A100-SXM4-80GB": "a100",
    "A100 (form factor not stated)": "a100",
    "A100-SXM4-40GB": "a100-sxm4-40gb",
    "A100-PCIE-40GB": "a100-pcie-40gb",
    "A100 80GB PCIe": "a100-80gb-pcie",
    "H100 80GB HBM3": "h100",
    "H100-SXM5-80GB": "h100",
    "H200": "h200",
    "B200": "b200",
    "B200-SXM": "b200",
    "L40S": "l40s",
    "RTX-A6000": "a6000",
    "RTX-4090": "rtx4090",
    "RTX-3090": "rtx3090",
    "RTX-3090Ti": "rtx3090ti",
    "RTX-6000-PRO": "rtxpro6000",
}

# In this order: the first that a row meets is the condition that it lacks.
_METHODS = (
    (r"qlora|q-lora|bnb|gptq|nf4|int8|4-bit", "quantized weights"),
    (r"dora", "DoRA"),
    (r"compile|fusion|max-autotune|reduce-overhead", "compiled"),
    (r"foak|liger|unsloth|zero|fused", "kernels of another project"),
)


@dataclass(frozen=True)
class Known:
    """One published timing that can be predicted. Its case names the model as the source does, not yet by a path."""

    source: str  # owner/name
    board: Board
    case: Case
    pass_: str
    ms: float
    changes: tuple[Change, ...] = ()
    training: bool = True  # False: no dropout of the model


@dataclass(frozen=True)
class Chosen:
    """The rows that can be predicted, and how many of the others lack what, by source."""

    known: list[Known]
    left_out: dict[tuple[str, str], int]  # (source, condition) -> rows


def read_model_level(folder: Path) -> Chosen:
    """The rows of model_level.csv. Raises UserError where it is missing or is not that file."""
    path = folder / "model_level.csv"
    where = "--published is the folder of published timings, which has this file."
    rows = read_table(folder, path.name, _COLUMNS, where, dtype=str, keep_default_na=False)
    chosen = Chosen([], {})
    for line, row in enumerate(rows.to_dict("records"), start=2):
        try:
            found = understood(row)  # type: ignore[arg-type]
        except (ValueError, ZeroDivisionError):
            raise UserError(f"{path}:{line}: value is {short(row['value'])}. It should be a number above 0.") from None
        if isinstance(found, Known):
            chosen.known.append(found)
        else:
            key = (source_of(row), found)  # type: ignore[arg-type]
            chosen.left_out[key] = chosen.left_out.get(key, 0) + 1
    return chosen


def source_of(row: Mapping[str, str]) -> str:
    """owner/name, or the title of a paper."""
    return re.split(r"[@#,]| Table", row["source"])[0]


def understood(row: Mapping[str, str]) -> Known | str:
    """The row as a case, or the condition for whose sake it is left out."""
    method = row["method"].lower()
    if row["n_gpus"] != "1":
        return "more than one GPU" if row["n_gpus"] else "number of GPUs not stated"
    if row["gpu"] not in _BOARDS:
        return "a GPU without a board here"
    for words, reason in _METHODS:
        if re.search(words, f"{method} {row['note'].lower() if reason == 'compiled' else ''}"):
            return reason
    if row["grad_ckpt"].startswith("not stated"):
        return "gradient checkpointing not stated"
    if "not packed" in method or not (row["seq"].isdigit() and row["batch"].isdigit()):
        return "batch or length not stated, or not the same in each step"
    read = _SOURCES.get(source_of(row))
    if read is None or row["model"] not in CONFIGS:
        return "a model without a config here"
    return read(row)


def _neusight(row: Mapping[str, str]) -> Known | str:
    """fp32 without TF32, attention not fused, no loss within the forward; BERT's inference is a classifier's, without
    the head over the vocabulary (neusight/Tracing/trace.py of that repository)."""
    inference = "inference" in row["method"]
    changes: list[Change] = ["plain attention"]
    if row["what"] == "forward":
        changes.append("no loss")
    if inference and row["model"] == "BERT-large":
        changes.append("no head")
    pass_ = {"forward+backward": "forward-backward"}.get(row["what"], row["what"])
    return _known(row, pass_, float(row["value"]), "fp32", tuple(changes), training=not inference)


def _one_block(row: Mapping[str, str]) -> Known | str:
    """One GPT-2 block in fp16 in training mode, attention not fused. The rate counts 24 b s h^2 + 4 b h s^2, three
    times that with the backward (micro_bench.ipynb of that repository)."""
    if "block" not in row["what"] or row["unit"] != "TFLOP/s":
        return "a rate of which the operations are not stated"
    b, s, h = int(row["batch"]), int(row["seq"]), 1024
    backward = "backward" in row["what"]
    tflop = (24 * b * s * h * h + 4 * b * h * s * s) * (3 if backward else 1) / 1e12
    ms = tflop / float(row["value"]) * 1e3
    return _known(row, "forward-backward" if backward else "forward", ms, "fp16", ("plain attention",), level="block")


def _tuning(row: Mapping[str, str]) -> Known | str:
    """Training by Hugging Face's trainer with gradient checkpointing; packed to 4096 tokens, of which the derived
    lengths of the rows miss up to 3."""
    seq = 1024 * round(int(row["seq"]) / 1024)
    if abs(seq - int(row["seq"])) > 3 or row["dtype"] != "bfloat16" or "[none]" not in row["method"]:
        return "precision or kernels not those of this project"
    row = {**row, "seq": str(seq)}
    more: dict[str, Any] = {}
    if row["method"].startswith("LoRA"):
        rank = re.search(r"r=(\d+)", row["method"])
        targets = re.findall(r"\w+_proj", row["method"])
        if rank is None or not targets:
            return "rank or adapted layers not stated"
        more = {"method": "lora", "impl": "peft", "rank": int(rank[1]), "alpha": 16.0, "dropout": 0.0,
                "targets": ",".join(targets), "adapter_dtype": "bf16"}  # fmt: skip
    changes: tuple[Change, ...] = ("recompute",) if row["grad_ckpt"] == "yes" else ()
    return _known(row, "step", _ms_of_tokens(row), "bf16", changes, **more)


def _when_to_upgrade(row: Mapping[str, str]) -> Known | str:
    """Eager Llamas in bf16 on torch 2.13, checkpointed where it says so."""
    pass_ = {"forward no_grad": "forward", "forward+backward": "forward-backward",
             "forward+backward+AdamW": "step"}.get(row["what"])  # fmt: skip
    if pass_ is None or row["unit"] != "ms":
        return "a rate of which the operations are not stated"
    changes: tuple[Change, ...] = ("no loss",) if pass_ == "forward" else ()
    if row["grad_ckpt"] == "yes" and pass_ != "forward":
        changes = ("recompute",)
    return _known(row, pass_, float(row["value"]), "bf16", changes)


def _torchtune(row: Mapping[str, str]) -> Known | str:
    """Its table adds one option a line, compile right after packing: the lines below have it too."""
    if row["method"] != "full FT + packed":
        return "compiled"
    return _known(row, "step", _ms_of_tokens(row), "bf16")


_SOURCES = {
    "sitar-lab/NeuSight": _neusight,
    "mli/transformers-benchmarks": _one_block,
    "foundation-model-stack/fms-acceleration": _tuning,
    "stas00/ml-engineering": _when_to_upgrade,
    "meta-pytorch/torchtune": _torchtune,
}


def _ms_of_tokens(row: Mapping[str, str]) -> float:
    """Of a step, from tokens a second."""
    return int(row["batch"]) * int(row["seq"]) / float(row["value"]) * 1e3


def _known(
    row: Mapping[str, str],
    pass_: str,
    ms: float,
    precision: str,
    changes: tuple[Change, ...] = (),
    training: bool = True,
    **axes: Any,
) -> Known:
    values: dict[str, Any] = {
        "level": "model", "model": row["model"], "layer": None, "method": "full", "impl": "eager",
        "trainable_layers": "all", "rank": None, "alpha": None, "dropout": None, "targets": None,
        "adapter_dtype": None, "precision": precision, "batch": int(row["batch"]), "seq": int(row["seq"]), "l2": "warm",
    }  # fmt: skip
    return Known(source_of(row), board_of(row["gpu"]), Case(**{**values, **axes}), pass_, ms, changes, training)


def board_of(gpu: str) -> Board:
    """The board of a name in the rows. Of the RTX 3090 Ti, which boards.yaml lacks, the 3090's numbers with its own
    data sheet (NVIDIA, GeForce RTX 3090 Ti, 2022: 84 SMs, 80 TFLOP/s with fp32 accumulation, 1008 GB/s)."""
    key = _BOARDS[gpu]
    if key != "rtx3090ti":
        return board(key)
    near = board("rtx3090")
    return replace(
        near, key=key, name="GeForce RTX 3090 Ti", sms=84, tflops=80.0, fp32_tflops=40.0, bandwidth_tbs=1.008
    )


def with_config(known: Known, folder: Path) -> Known:
    """The same with the path of a config.json, written into the folder, in the place of the model's name."""
    name = str(known.case.model)
    path = folder / f"{re.sub(r'[^A-Za-z0-9.]+', '-', name)}{'' if known.training else '-inference'}.json"
    if not path.exists():
        replace_file(path, config_text(name, known.training))
    return replace(known, case=replace(known.case, model=str(path)))
