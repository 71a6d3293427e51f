"""What doctor says of machines that are not here, and of this one."""

from dataclasses import replace

import pytest

from bench.commands.doctor import NEEDED, OPTIONAL, Facts, judge, look
from bench.devices import Device
from tests.conftest import Bench

H100 = Device("h100", "NVIDIA H100 80GB HBM3", 0, "GPU-1", "580.159.04", 132, 81559)
GOOD = Facts(
    python=(3, 12), system="Linux", packages=dict.fromkeys((*NEEDED, "triton", *OPTIONAL), "1.0"), torch_cuda="13.0",
    compiler="/usr/bin/cc", tools={"git": "/usr/bin/git", "make": "/usr/bin/make"}, gpus=[H100], cpu="a CPU",
    operator=(15.06, 9.33),
)  # fmt: skip


def findings(facts: Facts, verdict: str) -> dict[str, str]:
    return {f.what: f"{f.found}; {f.mend}" for f in judge(facts) if f.verdict == verdict}


def test_a_machine_with_everything() -> None:
    assert not findings(GOOD, "missing") and not findings(GOOD, "note")
    assert "--gpu h100" in findings(GOOD, "ok")["GPU"]


def test_the_hosts_cost_or_what_measures_it() -> None:
    assert "forward 15.1 us, backward 9.3 us" in findings(GOOD, "ok")["host cost of an operator"]
    unknown = findings(replace(GOOD, operator=None), "note")["host cost of an operator"]
    assert "python -m bench predict measures it" in unknown


def test_a_driver_too_old_for_the_torch_that_is_there() -> None:
    old = replace(GOOD, gpus=[replace(H100, driver="535.104.05")])
    said = findings(old, "missing")["GPU driver"]
    assert "535" in said and "580" in said and "pip install torch" in said
    assert "GPU driver" not in findings(replace(old, torch_cuda="12.8"), "missing"), "535 runs every CUDA 12"


def test_a_cpu_torch_on_a_gpu_machine() -> None:
    assert "CPU build" in findings(replace(GOOD, torch_cuda=None), "missing")["torch with CUDA"]


@pytest.mark.parametrize("name", ["torch", "transformers", "pydantic"])
def test_what_is_missing_comes_with_its_command(name: str) -> None:
    facts = replace(GOOD, packages=GOOD.packages | {name: None})
    assert "pip install -c constraints.txt" in findings(facts, "missing")[name]


@pytest.mark.parametrize(("name", "command"), [("lm-eval", "evaluate"), ("tensorboard", "train"), ("peft", "PEFT")])
def test_an_absent_extra_is_a_note_that_says_what_it_is_for(name: str, command: str) -> None:
    facts = replace(GOOD, packages=GOOD.packages | {name: None})
    assert not findings(facts, "missing")
    said = findings(facts, "note")[name]
    assert command in said and "pip install -c constraints.txt -e '.[" in said


def test_other_machines() -> None:
    mac = replace(GOOD, system="Darwin", packages=GOOD.packages | {"triton": None}, gpus=[], torch_cuda=None)
    assert "all but impl triton" in findings(mac, "note")["triton"]
    assert "no NVIDIA GPU" in findings(mac, "note")["GPU"]
    assert not findings(mac, "missing")
    assert "triton" in findings(replace(GOOD, packages=GOOD.packages | {"triton": None}), "missing")
    assert "Triton and torch.compile" in findings(replace(GOOD, compiler=None), "note")["C compiler"]
    assert "3.11" in findings(replace(GOOD, python=(3, 10)), "missing")["Python"]
    assert "git" in findings(replace(GOOD, tools={"git": None, "make": "/usr/bin/make"}), "note")


def test_two_packages_named_kernels_are_told() -> None:
    assert "works beside" in findings(replace(GOOD, namesake=("0.18.2", "")), "ok")["kernels"]
    failed = replace(GOOD, namesake=("0.18.2", "ImportError: cannot import name 'Mode' from 'kernels'"))
    said = findings(failed, "missing")["kernels"]
    assert "cannot import name 'Mode'" in said and "pip uninstall kernels" in said


def test_this_machine(bench: Bench) -> None:
    assert look().packages["torch"]
    done = bench("doctor")
    assert done.returncode == 0 and "torch" in done.stdout and "GPU" in done.stdout
