"""Launches every kernel twice where it is kept, by the kept launch and by Triton's own look-up, and compares."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kernels.runtime import launch
from tests.kernels.stub_driver.pretended_gpus import launches


class Watch:
    """What launch.recorder is set to; the counts are by the kernel's name."""

    def __init__(self) -> None:
        self.kept: Counter[str] = Counter()
        self.looked_up: Counter[str] = Counter()
        self.differing: list[str] = []
        self.streams: set[str] = set()
        self.attributes: set[str] = set()
        self.scales: list[tuple[str, float | None]] = []

    def __call__(self, run: launch.Launch, inputs: dict[str, Any]) -> None:
        if run.compiled is None:
            own = self._handed(run.start, inputs)
            self.looked_up[run.name] += 1
        else:
            kept_before = run.compiled
            kept = self._handed(lambda inputs: run(**inputs), inputs)
            own = self._handed(run.start, inputs)
            run.compiled = kept_before
            self.kept[run.name] += 1
            self.differing += [
                f"{run.name} {field}: kept {kept[field]}, by look-up {value}"
                for field, value in own.items()
                if kept[field] != value
            ]
        self.streams.add(own["stream"])
        self.attributes.add(own["attributes"])
        if "scale" in inputs:
            self.scales.append((run.name, _handed_float(run, inputs, own, "scale")))

    def _handed(self, start: Any, inputs: dict[str, Any]) -> dict[str, str]:
        launches()
        launch.recorder = None
        try:
            start(inputs)
        finally:
            launch.recorder = self
        (handed,) = launches()
        return handed


def _handed_float(run: launch.Launch, inputs: dict[str, Any], handed: dict[str, str], name: str) -> float | None:
    """The fp32 argument of this name; None where the kernel has none such, because it was compiled into it."""
    if not isinstance(inputs[name], float):
        return None
    before = run.inputs[: run.inputs.index(name)]  # pointers all; None is compiled in as well
    position = sum(inputs[other] is not None for other in before)
    return struct.unpack("<f", bytes.fromhex(handed["parameters"].split(",")[position]))[0]


@contextmanager
def watching(anew: bool = True) -> Iterator[Watch]:
    """Watches all launches; anew: those of plans that are made within it, and forgotten after it."""
    watch = Watch()
    if anew:
        launch.forget_plans()
    launch.recorder = watch
    try:
        yield watch
    finally:
        launch.recorder = None
        if anew:
            launch.forget_plans()
