"""What the distance from the baseline settles: never a tensor that the reference would refuse."""

import math

import pytest
import torch

from bench.correctness.bounds import good, judge, near, relative_errors
from tests.models.tiny import make_case


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("branch", [1.0, 1e-3])
def test_what_the_baseline_settles_is_in_bounds(precision: str, branch: float) -> None:
    """Baselines from exact to useless, and what lies from on to far beside them, in any direction."""
    case = make_case(None, "lora", "linear", layer="square-64", precision=precision)
    settled = 0
    for _ in range(300):
        base = torch.randn(64, dtype=torch.float64)
        exact = {"output": base + branch * torch.randn(64, dtype=torch.float64)}
        off, beside = (10.0 ** (-8 * torch.rand(()).item()) for _ in range(2))
        plain = {"output": exact["output"] + off * torch.randn(64)}
        found = {"output": plain["output"] + beside * (plain["output"] - exact["output"])}
        errors = relative_errors(found, exact, {"output": base})
        passed = good(judge(errors, relative_errors(plain, exact, {"output": base}), case))
        if near(found, plain, {"output": base}, False, case) is not None:
            settled += 1
            assert passed
    assert settled > 20


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nothing_settles_what_is_not_finite(value: float) -> None:
    case = make_case(None, "lora", "linear", layer="square-64")
    bad = torch.tensor([1.0, value])
    assert near({"x": bad}, {"x": bad.clone()}, {}, False, case) is None


def test_of_zeros_all_but_zeros_is_infinitely_off() -> None:
    wanted = {name: torch.zeros(2) for name in ("same", "other", "nan")}
    found = wanted | {"other": torch.tensor([0.0, 1e-30]), "nan": torch.tensor([0.0, math.nan])}
    errors = relative_errors(found, wanted)
    assert errors["same"] == 0.0 and errors["other"] == math.inf and math.isnan(errors["nan"])
