"""Which cases may be alive side by side, against sums of bytes made here."""

from dataclasses import replace
from types import SimpleNamespace

import psutil
import pytest

from bench.devices import Device, cpu_device
from bench.roofline.memory import need
from bench.runner.fit import fits
from bench.sweeps.expand import make_plan

GIB = 2**30
H100 = Device("h100", "NVIDIA H100 80GB HBM3", 0, "GPU-1", "1", 132, 81559)


def test_what_waits_is_summed_and_what_works_counts_once() -> None:
    cases = [c for c in make_plan("table1", False, ["model=gpt2-xl", "seq=1024"]).cases if c.impl == "eager"]
    assert len(cases) == 3
    held = sum(GIB + need(c, False).at_least for c in cases)
    at_work = max(need(c, False).activations or 0 for c in cases)
    assert at_work > GIB
    enough = int((held + at_work) / 0.85 / 2**20) + 1
    assert fits(cases, False, replace(H100, memory_mib=enough))
    assert not fits(cases, False, replace(H100, memory_mib=enough - 2))


def test_the_papers_table_1_is_measured_side_by_side_on_80_gb() -> None:
    for model in ("gpt2-medium", "gpt2-xl", "tinyllama"):
        for seq in (512, 1024):
            assert fits(make_plan("table1", False, [f"model={model}", f"seq={seq}"]).cases, False, H100), (model, seq)


def test_full_fine_tuning_of_7b_stands_alone_on_80_gb() -> None:
    cases = make_plan("table2", False, ["model=llama2-7b"]).cases
    no_adapter = dict.fromkeys(("rank", "alpha", "dropout", "targets", "adapter_dtype"))
    whole = replace(cases[0], method="full", **no_adapter)
    assert not fits([whole, cases[0]], True, H100)


def test_unknown_memory_is_enough() -> None:
    assert fits(make_plan("table1", False).cases, False, replace(H100, memory_mib=None))


def test_blocks_fit_into_this_machine() -> None:
    assert fits(make_plan("table1", True, ["model=gpt2-medium", "seq=64"]).cases[:2], False, cpu_device())


def test_on_a_cpu_what_is_kept_for_backward_is_summed(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = make_plan("table2", True).cases[:2]
    needs = [need(c, True) for c in cases]
    enough = sum(GIB + n.at_least + (n.activations or 0) for n in needs) / 0.85
    assert all(n.activations for n in needs)
    for room, there in ((enough + 1, True), (enough - 1e6, False)):
        monkeypatch.setattr(psutil, "virtual_memory", lambda room=room: SimpleNamespace(available=room))
        assert fits(cases, True, cpu_device()) is there
