"""What the tuner times runs the kernel of its candidate, in every layout, with bias and dropout."""

from dataclasses import replace

import pytest
import torch

from kernels.runtime import launch
from kernels.runtime.dispatch import Case
from kernels.runtime.schemes import TILED
from kernels.tune.candidates import CHOOSE, candidates
from kernels.tune.timer import make_call, tiles_given

PLAIN = Case(32, 48, 64, 4, 90, 132)
CASES = {"plain": PLAIN, "dropped": replace(PLAIN, dropout=True, conv1d=True, bias=True)}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("passed", CHOOSE)
def test_every_scheme_runs_its_kernel(name: str, passed: str) -> None:
    by_scheme = {c.scheme: c for c in reversed(candidates(CASES[name], passed))}
    assert len(by_scheme) >= 4
    for scheme, candidate in by_scheme.items():
        if candidate.tile is not None:
            candidate = replace(candidate, tile=(16, 32, 32, 2, 4))
        with tiles_given(candidate):
            call = make_call(candidate, torch.device("cpu"))
            launch.counts.clear()
            found = call()
        kernel = TILED.get(scheme, "project" if passed == "forward" else "branch_gradients")
        assert f"{kernel}_kernel" in launch.counts, (scheme, launch.counts)
        first, n = (found, CASES[name].n) if passed == "forward" else (found[0], CASES[name].k)
        assert first.shape == (32, n) and first.isfinite().all(), scheme
