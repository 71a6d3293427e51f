"""The project's vocabulary: axes of a case, columns of a row, statuses. Imports nothing: everyone may use it."""

from enum import StrEnum

SCHEMA = 1  # of the files in a results folder; raise it when a column changes its meaning

LEVELS = ("linear", "block", "model")
METHODS = ("full", "lora", "paca")
PRECISIONS = ("bf16", "fp16", "fp32", "amp-bf16", "amp-fp16")
DTYPES = ("bf16", "fp16", "fp32")
PASSES = ("forward", "backward", "forward-backward", "step")
CLOCKS = ("eager", "host", "device", "graph", "cpu")
L2_STATES = ("cold", "warm")

# What makes a case what it is. Two cases that agree on these are the same case.
AXES = (
    "level", "model", "layer", "method", "impl", "trainable_layers", "rank", "alpha", "dropout", "targets",
    "adapter_dtype", "precision", "batch", "seq", "accumulation", "l2",
)  # fmt: skip

# The columns of rows.csv, in their order. An empty cell means not measured.
COLUMNS = (
    "case_id", "run_id", "repeat", "gpu", *AXES[:-1], "pass", "clock", "l2",
    "median_ms", "ci_low_ms", "ci_high_ms", "p20_ms", "p80_ms", "min_ms", "n", "outliers", "stop", "noisy",
    "status", "detail",
    "peak_mib", "trainable_params", "flops", "bytes", "floor_ms", "launches", "sm_clock_mhz", "power_w",
    "temperature_c", "mem_clock_mhz", "power_capped", "dropped", "refresh_ms", "optimizer_ms", "parts_ms",
    "model_dropout", "process", "measured_at", "repro",
)  # fmt: skip

# Columns that hold a time. No status is ever a number in one of them.
TIME_COLUMNS = ("median_ms", "ci_low_ms", "ci_high_ms", "p20_ms", "p80_ms", "min_ms")


class Status(StrEnum):
    """How the measurement of one row ended."""

    ok = "ok"
    oom = "oom"  # an allocator's refusal
    crashed = "crashed"  # the child was ended by a signal, the kernel's out-of-memory kill included
    timeout = "timeout"  # the child said nothing for too long and was killed
    wrong = "wrong"  # the correctness gate failed: no numbers
    suspect = "suspect"  # faster than physics allows
    throttled = "throttled"  # the GPU never came to rest
    contended = "contended"  # another process was computing on the same GPU
    unsupported = "unsupported"  # this impl cannot express this case, on this machine; not a failure
    error = "error"  # anything else that went wrong in the child
