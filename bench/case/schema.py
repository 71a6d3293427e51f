"""The project's vocabulary: what an axis is, the words of axes and rows, statuses. Imports nothing of bench."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

SCHEMA = 1  # of the files in a results folder; raise it when a column changes its meaning

LEVELS = ("linear", "block", "model")
PRECISIONS = ("bf16", "fp16", "fp32", "amp-bf16", "amp-fp16")
DTYPES = ("bf16", "fp16", "fp32")
PASSES = ("forward", "backward", "forward-backward", "step")
L2_STATES = ("cold", "warm")
SCALINGS = ("standard", "rslora")
CHECKPOINTING = ("none", "full", "selective")
LEAST_INNER = 256  # inner dimension of a product whose result selective checkpointing keeps
OPTIMIZERS = ("adamw", "adamw-8bit", "paged-adamw", "paged-adamw-8bit", "sgd")
COMPILE_MODES = ("none", "default", "reduce-overhead", "max-autotune")

BASELINE = "full"  # the method that ratios are taken over
FLOOR = "bitfit"  # the method that trains next to nothing: the least that any costs, and no answer to what to use

# What a case took turns with: all cases of its comparison, the baseline alone since not all fit into memory at once,
# or nothing, since no second one could be alive beside it.
BESIDE = ("comparison", "baseline", "nothing")


def _as_is(value: object) -> object:
    return value


@dataclass(frozen=True)
class Axis:
    """What is to be known of an axis. Everything that lists axes reads it from here."""

    label: str  # as people read it
    meaning: str  # one sentence, for docs/columns.md
    valid: tuple[str, ...] | None = None  # its words; None: any value of its type
    above: float | None = None  # bounds of a number: value > above,
    least: float | None = None  # value >= least,
    below: float | None = None  # value < below
    trains: bool = False  # says how a case trains; the cases that differ only in such axes form a comparison
    compared: bool = True  # must be equal for a ratio to mean anything
    any_method: bool = False  # says how a case trains, whatever its method
    usual: str | None = None  # the first of its words, which stands as an empty cell
    listed: bool = True  # has a column in `bench list`
    since: int = 1  # revision of the axes; one that came later is left out of the case_id where it is empty
    read: Callable[[Any], Any] = _as_is  # what people may write in a sweep file -> the value


def axis(label: str, meaning: str, *, default: Any = ..., **more: Any) -> Any:
    """A dataclass field that is an axis; `more` are fields of Axis."""
    metadata = {"axis": Axis(label, meaning, **more)}
    return field(metadata=metadata) if default is ... else field(default=default, metadata=metadata)


class Status(StrEnum):
    """How the measurement of one row ended."""

    ok = "ok"
    oom = "oom"  # an allocator's refusal
    crashed = "crashed"  # the worker was ended by a signal, the kernel's out-of-memory kill included
    timeout = "timeout"  # the worker said nothing for too long and was killed
    wrong = "wrong"  # the correctness check failed: no numbers
    suspect = "suspect"  # faster than physics allows
    throttled = "throttled"  # the GPU never came to rest
    contended = "contended"  # another process was computing on the same GPU
    unsupported = "unsupported"  # this impl cannot express this case, on this machine; not a failure
    error = "error"  # anything else that went wrong in the worker
