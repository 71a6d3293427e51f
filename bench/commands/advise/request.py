"""What `advise` is asked for, checked."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from bench.errors import UserError, short
from bench.sweeps.of_model import ModelRequest

SWEEP = "advise"
Kinds = Collection[tuple[str, str]]  # (method, impl)
UNITS = {"GiB": 2**30, "MiB": 2**20, "GB": 10**9, "MB": 10**6}
COUNTS = {"": 1, "k": 10**3, "M": 10**6, "B": 10**9}
MOST_BYTES = 2**50
MOST_PRICE = 10**6


@dataclass(frozen=True)
class Asked:
    """The options, read. memory: bytes; seconds: to measure in; price: of an hour; the two others are budgets of a
    step's time in ms and of trained values. None where one was not given."""

    model: ModelRequest
    gpu: str = "auto"
    memory: int | None = None
    seconds: float = 300.0
    price: float | None = None
    step_ms: float | None = None
    trained: int | None = None
    out: Path | None = None
    fresh: bool = False

    @property
    def chooses_layers(self) -> bool:
        return self.step_ms is not None or self.trained is not None


def bytes_of(flag: str, text: str) -> int:
    """'24GiB' in bytes. Raises UserError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(GiB|MiB|GB|MB)", text)
    value = float(found[1]) * UNITS[found[2]] if found else 0.0
    if not 2**20 <= value <= MOST_BYTES:
        raise UserError(f"{flag}: {short(text)} is no size of memory. Write it as 24GiB, 24000MiB or 24GB.")
    return round(value)


def count_of(flag: str, text: str) -> int:
    """'20M' as a number of values. Raises UserError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kMB]?)", text)
    value = float(found[1]) * COUNTS[found[2]] if found else 0.0
    if not 1 <= value <= 10**15:
        raise UserError(f"{flag}: {short(text)} is no number of values. Write it as 20000000, 20M or 1.5B.")
    return round(value)


def number_of(flag: str, text: str, what: str) -> float:
    """A number above 0, such as the price of an hour. Raises UserError."""
    found = float(text) if re.fullmatch(r"\d+(\.\d+)?", text) else 0.0
    if not 0 < found <= MOST_PRICE:
        raise UserError(f"{flag}: {short(text)} is no {what}. Give a number above 0 and at most {MOST_PRICE:,}.")
    return found
