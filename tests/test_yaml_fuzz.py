"""Sweep and strategy files damaged at random: read, or refused in one line that begins with the file. Never else."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.errors import UserError
from bench.sweeps.expand import make_plan
from bench.sweeps.file import SWEEPS, read_sweep
from bench.train.strategy import STRATEGIES, read_strategy
from bench.yamlfile import load_yaml
from tests.conftest import SWEEP
from tests.mutations import damaged, mutated

TOKENS = (
    "!!bool ", "!!int ", "!!float ", "!!null ", "!!str ", "!!set ", "!!omap ", "!!map ", "!x ", "! ", "!<%ff> ", "&a ",
    "*a", "<<: *a\n", "? ", ": ", "- ", "{", "}", "[", "]", ",", "|\n", ">-\n", "'", '"', "#", "---\n", "...\n", "\t",
    "%YAML 1.1\n---\n", "%TAG ! x\n", ".inf", ".nan", "1e400", "-1", "0x10", "9" * 30, "9" * 5000, "~", "yes", "@", "`",
    '"\\uD800"', '"\\UFFFFFFFF"', "\x85", "\u2028", "\ufeff", "\x00", "\x1b[31m", "ä", "x: " * 200, "[" * 200, "\n",
)  # fmt: skip


@st.composite
def damaged_yaml(draw: st.DrawFn, files: list[Path]) -> bytes:
    """One of the files after some words were put in, or with other values, or with other bytes."""
    text = draw(st.sampled_from([SWEEP, *(p.read_text(encoding="utf-8") for p in files)]))
    how = draw(st.sampled_from(("tokens", "tokens", "values", "bytes")))
    if how == "bytes":
        return draw(damaged(text.encode()))
    if how == "values":
        value = draw(mutated(load_text(text)))
        return json.dumps(value, ensure_ascii=draw(st.booleans())).encode(errors="surrogatepass")
    for _ in range(draw(st.integers(1, 4))):
        at, gone = draw(st.integers(0, len(text))), draw(st.sampled_from((0, 0, 1, 5)))
        text = text[:at] + draw(st.sampled_from(TOKENS)) + text[at + gone :]
    return text.encode()


def load_text(text: str) -> Any:
    from bench.yamlfile import parse_yaml

    return parse_yaml(text, Path("original")).value


def sweep(path: Path) -> None:
    load_yaml(path)
    read_sweep(path)
    make_plan(str(path), on_cpu=True)


def strategy(path: Path) -> None:
    load_yaml(path)
    read_strategy(str(path))


def refused_or_read(read: Callable[[Path], None], folder: Path, data: bytes) -> None:
    path = folder / "fuzzed.yaml"
    path.write_bytes(data)
    try:
        read(path)
    except UserError as e:
        assert str(e).startswith(f"{path}") and "\n" not in str(e), e
        assert str(e).isprintable() and len(str(e)) < 3000


def fuzz(examples: int) -> Any:
    return settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))


A_SWEEP, A_STRATEGY = damaged_yaml(sorted(SWEEPS.glob("*.yaml"))), damaged_yaml(sorted(STRATEGIES.glob("*.yaml")))


@fuzz(50)
@given(A_SWEEP)
def test_a_damaged_sweep(tmp_path: Path, data: bytes) -> None:
    refused_or_read(sweep, tmp_path, data)


@fuzz(50)
@given(A_STRATEGY)
def test_a_damaged_strategy(tmp_path: Path, data: bytes) -> None:
    refused_or_read(strategy, tmp_path, data)


@pytest.mark.slow
@fuzz(2000)
@given(A_SWEEP)
def test_many_damaged_sweeps(tmp_path: Path, data: bytes) -> None:
    refused_or_read(sweep, tmp_path, data)


@pytest.mark.slow
@fuzz(2000)
@given(A_STRATEGY)
def test_many_damaged_strategies(tmp_path: Path, data: bytes) -> None:
    refused_or_read(strategy, tmp_path, data)
