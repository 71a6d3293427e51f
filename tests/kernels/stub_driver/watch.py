"""Launches every kernel twice where it is kept, by the kept launch and by Triton's own look-up, and compares."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from kernels.runtime import launch
from tests.kernels.dependent_launches import read_early, written
from tests.kernels.stub_driver.pretended_gpus import launches


class Watch:
    """What launch.recorder is set to; the counts are by the kernel's name."""

    def __init__(self) -> None:
        self.kept: Counter[str] = Counter()
        self.looked_up: Counter[str] = Counter()
        self.differing: list[str] = []
        self.streams: set[str] = set()
        self.attributes: set[str] = set()
        self.racing: list[str] = []
        self.ahead: tuple[str, set[int]] = ("nothing", set())
        self.seeds: list[tuple[str, int]] = []  # the address of the part in memory, and the part from the host
        self.functions: set[str] = set()
        self.scales: list[tuple[str, float | None]] = []

    def __call__(self, run: launch.Launch, inputs: dict[str, Any]) -> None:
        self._race(run, inputs)
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
        if inputs.get("p_seed") is not None:
            address, value = (bytes.fromhex(_handed_one(run, inputs, own, name)) for name in ("p_seed", "seed"))
            self.functions.add(own["function"])
            self.seeds.append((hex(int.from_bytes(address, "little")), struct.unpack("<q", value)[0]))
        if "scale" in inputs:
            self.scales.append((run.name, _handed_float(run, inputs, own, "scale")))

    def _race(self, run: launch.Launch, inputs: dict[str, Any]) -> None:
        """Whether this launch may read what the one ahead of it is still writing."""
        name, unfinished = self.ahead
        if racing := unfinished & _memory(inputs, read_early(run)):
            self.racing.append(f"{run.name} reads {len(racing)} outputs of {name} early")
        self.ahead = (run.name, _memory(inputs, written(run)))

    def _handed(self, start: Any, inputs: dict[str, Any]) -> dict[str, str]:
        launches()
        launch.recorder = None
        try:
            start(inputs)
        finally:
            launch.recorder = self
        (handed,) = launches()
        return handed


def _memory(inputs: dict[str, Any], names: set[str]) -> set[int]:
    """The addresses of what these inputs are slices of."""
    tensors = (inputs[name] for name in names if isinstance(inputs.get(name), Tensor))
    return {t.untyped_storage().data_ptr() for t in tensors}


def _handed_float(run: launch.Launch, inputs: dict[str, Any], handed: dict[str, str], name: str) -> float | None:
    """The fp32 argument of this name; None where the kernel has none such, because it was compiled into it."""
    if not isinstance(inputs[name], float):
        return None
    return struct.unpack("<f", bytes.fromhex(_handed_one(run, inputs, handed, name)))[0]


def _handed_one(run: launch.Launch, inputs: dict[str, Any], handed: dict[str, str], name: str) -> str:
    """The bytes of this argument; those before it are pointers or a seed, of which None is compiled in."""
    before = run.inputs[: run.inputs.index(name)]
    return handed["parameters"].split(",")[sum(inputs[other] is not None for other in before)]


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
