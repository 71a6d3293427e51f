"""The dispatcher's quick model of a tile and the estimate from machine code agree in the large on an H100.

The two share no code: the one sees a tile's sides, the other the instructions and registers that the compiler made.
"""

from collections import defaultdict
from statistics import correlation

import pytest

pytest.importorskip("triton")

from kernels.audit.estimate import PROJECTIONS, TOKENS, compiled, row_of
from kernels.audit.estimate_machine import MACHINES
from kernels.audit.estimate_runs import run_of, subjects
from kernels.runtime import launch
from kernels.runtime.tile_model import gemm_us, gpu


def ranks(values: list[float]) -> list[float]:
    return [float(sorted(values).index(value)) for value in values]


@pytest.mark.slow
@pytest.mark.skipif(launch.interpreting(), reason="interpreted kernels cannot be compiled")
def test_the_dispatchers_model_and_the_estimate_rank_tiles_alike() -> None:
    device = gpu(90, 132)
    assert device is not None
    found = list(subjects(90, ["gemm_kernel", "gemm_tma_kernel"]))
    times = defaultdict(list)
    for subject, program in zip(found, compiled(found, 90, jobs=2), strict=True):
        for n, k in PROJECTIONS:
            estimated = row_of(subject, program, "h100", (TOKENS, n, k))["us"]
            tma, heavy = subject.kernel == "gemm_tma_kernel", "dropout" in subject.computes
            shape = run_of(subject.at(MACHINES["h100"], TOKENS, n, k)).product
            assert shape is not None
            times[subject.computes, n, k].append(
                (estimated, gemm_us(subject.tile, device, *shape, tma=tma, heavy=heavy))
            )

    estimated, quick = zip(*(pair for pairs in times.values() for pair in pairs), strict=True)
    agreement = correlation(ranks(list(estimated)), ranks(list(quick)))
    # What the estimate says of the tile that the quick model likes best, against the tile that it likes best itself.
    losses = [min(pairs, key=lambda pair: pair[1])[0] / min(pairs)[0] - 1 for pairs in times.values()]
    print(f"rank correlation {agreement:.3f} of {len(quick)}, losses {sorted(losses)[-4:]}")
    assert agreement > 0.97
    assert sum(loss < 0.05 for loss in losses) >= 0.9 * len(losses)
