"""A/A: how often identical code is called different, and a known slowdown missed. Simulated, through real folders."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.commands.compare import compare_folders
from bench.compare.verdict import Verdict
from tests.synthetic import Array, abba, sampled, write_run

PAIRS = 200


def autoregressive(rng: np.random.Generator, n: int, spread: float) -> Array:
    """AR(1) 0.9 with the standard deviation `spread`."""
    noise = rng.standard_normal(n) * spread * np.sqrt(1 - 0.9**2)
    x = np.empty(n)
    x[0] = rng.standard_normal() * spread
    for i in range(1, n):
        x[i] = 0.9 * x[i - 1] + noise[i]
    return x


def simulate(folder: Path, rng: np.random.Generator, slowdown: float, rounds: int = 5) -> tuple[Path, Path]:
    """Two folders of runs measured in turns, B slower by `slowdown`.

    Each process is off by 0.5 to 1 % (sd); within it 1 % jitter, AR(1) drift of 0.3 % and 1 % of samples 3 times too
    long; the machine drifts slowly under both, by 0.5 % along a line and 0.5 % (sd) of AR(1).
    """
    order = abba(rounds)
    spread = rng.uniform(0.005, 0.01)
    machine = autoregressive(rng, len(order), 0.005) + 0.005 * np.linspace(-1, 1, len(order)) * rng.choice([-1, 1])
    lines: dict[str, list[Any]] = {"A": [], "B": []}
    for i, side in enumerate(order):
        level = 2.0 * (1 + machine[i] + spread * rng.standard_normal()) * (1 + slowdown * (side == "B"))
        x = level * (1 + 0.01 * rng.standard_normal(40) + autoregressive(rng, 40, 0.003))
        x = np.where(rng.random(40) < 0.01, 3 * x, x)
        lines[side].append(sampled(side.lower(), len(lines[side]), i, x))
    a, b = (write_run(folder / s.lower(), *(list(x) for x in zip(*lines[s], strict=True))) for s in "AB")
    return a, b


def verdicts(tmp_path: Path, seed: int, slowdown: float) -> Counter[Verdict | None]:
    rng = np.random.default_rng(seed)
    found: Counter[Verdict | None] = Counter()
    for i in range(PAIRS):
        ((_, outcome),) = compare_folders(*simulate(tmp_path / str(i), rng, slowdown)).judged
        found[outcome.verdict] += 1
    assert found[None] == 0
    return found


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_identical_code_is_rarely_called_different(tmp_path: Path, seed: int) -> None:
    found = verdicts(tmp_path, seed, 0.0)
    assert found[Verdict.FASTER] + found[Verdict.SLOWER] <= 0.05 * PAIRS


def test_a_slowdown_of_three_percent_is_found(tmp_path: Path) -> None:
    found = verdicts(tmp_path, 3, 0.03)
    assert found[Verdict.SLOWER] >= 0.90 * PAIRS
    assert found[Verdict.FASTER] == found[Verdict.SAME] == 0


@pytest.mark.slow
def test_a_speedup_of_three_percent_is_found(tmp_path: Path) -> None:
    found = verdicts(tmp_path, 4, -0.03)
    assert found[Verdict.FASTER] >= 0.90 * PAIRS
    assert found[Verdict.SLOWER] == found[Verdict.SAME] == 0


def test_samples_of_one_process_a_side_would_call_identical_code_different(tmp_path: Path) -> None:
    """Why processes are resampled, not samples: a test that takes samples for independent is wrong most of the time."""
    from scipy.stats import mannwhitneyu

    rng = np.random.default_rng(5)
    wrong = 0
    for i in range(50):
        a, b = simulate(tmp_path / str(i), rng, 0.0, rounds=1)
        one, other = (json.loads((f / "samples.jsonl").read_text())["samples_ms"] for f in (a, b))
        wrong += mannwhitneyu(one, other).pvalue < 0.05
    assert wrong > 0.4 * 50
