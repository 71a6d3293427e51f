"""Runs tests/kernels/interpreted in processes with TRITON_INTERPRET=1: this process keeps its own kernels."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
FILES = sorted(path.name for path in (HERE / "interpreted").glob("test_*.py"))
# Two processes that take about as long as each other: more would only import torch and Triton more often.
CASES = [name for name in FILES if "cases" in name]
REST = [name for name in FILES if "cases" not in name]


def run(names: list[str], marks: str) -> None:
    pytest.importorskip("triton")
    if os.environ.get("TRITON_INTERPRET") == "1":
        pytest.skip("already interpreting: the files are collected directly")
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-m",
        marks,
        *(f"tests/kernels/interpreted/{name}" for name in names),
    ]
    done = subprocess.run(command, cwd=HERE.parents[1], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 5), f"{' '.join(command)}\n{done.stdout[-8000:]}\n{done.stderr[-2000:]}"


@pytest.mark.parametrize("names", [CASES, REST], ids=["cases", "rest"])
def test_in_the_interpreter(names: list[str]) -> None:
    run(names, "not slow")


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_in_the_interpreter_slow(name: str) -> None:
    run([name], "slow")
