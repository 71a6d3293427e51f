"""Two processes under DistributedDataParallel: the accelerated model trains as PEFT's does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.kernels.peft.peft_models import assert_same

SCRIPT = Path(__file__).with_name("ddp_run.py")


def train(folder: Path, which: str) -> list[dict]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("TRITON_INTERPRET", None)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, str(SCRIPT), str(folder), which], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return [torch.load(folder / f"{which}-{rank}.pt") for rank in range(2)]


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="torch was built without gloo")
def test_two_processes(tmp_path: Path) -> None:
    theirs, ours = train(tmp_path, "peft"), train(tmp_path, "accelerated")
    for rank in range(2):
        torch.testing.assert_close(ours[rank]["losses"], theirs[rank]["losses"], rtol=1e-5, atol=1e-6)
        assert_same(ours[rank]["gradients"], theirs[rank]["gradients"])
        assert_same(ours[rank]["parameters"], theirs[rank]["parameters"])
    assert not torch.equal(ours[0]["losses"], ours[1]["losses"]), "the ranks saw different data"
    assert_same(ours[0]["gradients"], ours[1]["gradients"], rtol=0, atol=0)
