"""Table 1 under pytest-benchmark: `pytest --benchmark-only`. Whole models on a GPU, one block of each on a CPU.

pytest-benchmark keeps its tables, JSON, compare and histogram; the times are ours. The sampler measures, and the
samples are replayed through pytest-benchmark's own rounds by a timer that returns them one by one.
"""

from typing import Any

import pytest

from bench.record.stats import summarize
from tests.table1 import CASES, CLOCK, PLAN, measured


class Replay:
    """A timer for pytest-benchmark: 0.0 at a round's start, the next sample in seconds at its end."""

    __name__ = CLOCK  # as JSON has it under options

    def __init__(self) -> None:
        self._samples: list[float] = []
        self._started = False

    def load(self, samples_ms: list[float]) -> None:
        self._samples = [ms / 1e3 for ms in reversed(samples_ms)]
        self._started = False

    def __call__(self) -> float:
        self._started = not self._started
        return 0.0 if self._started else self._samples.pop()


TIMER = Replay()
PARAMS = ("model", "method", "impl", "batch", "length", "pass_")


def parameters() -> list[Any]:
    """Every case and pass; what is compared with each other stands together."""
    sizes = list(dict.fromkeys(case.comparison for case in CASES.values()))
    cases = sorted(CASES.items(), key=lambda item: sizes.index(item[1].comparison))
    return [
        pytest.param(*key, p, id=f"{key[0]}-{case.method}-{case.impl}-{case.batch}x{case.seq}-{p}")
        for key, case in cases
        for p in PLAN.passes
    ]


@pytest.mark.benchmark(timer=TIMER)
@pytest.mark.parametrize(PARAMS, parameters())
def test_time(
    request: pytest.FixtureRequest,
    benchmark: Any,
    model: str,
    method: str,
    impl: str,
    batch: int,
    length: int,
    pass_: str,
) -> None:
    import torch

    case = CASES[model, method, impl, batch, length]
    params = [
        item.callspec.params for item in request.session.items if getattr(item, "originalname", "") == "test_time"
    ]
    chosen = dict.fromkeys(CASES[tuple(p[name] for name in PARAMS[:-1])] for p in params)
    beside = tuple(c for c in chosen if c.comparison == case.comparison)
    samples = measured(beside, brief=benchmark.disabled)[case]
    if isinstance(samples, str):
        pytest.skip(samples)
    TIMER.load(samples[pass_])
    benchmark.group = f"{model} {batch}x{length} {pass_}"
    benchmark.extra_info |= {"case_id": case.case_id, "clock": CLOCK, "threads": torch.get_num_threads()} | case.axes()
    benchmark.pedantic(lambda: None, rounds=len(samples[pass_]))
    if benchmark.stats is not None:  # None under --benchmark-disable
        assert benchmark.stats.stats.median * 1e3 == pytest.approx(summarize(samples[pass_]).median_ms)
