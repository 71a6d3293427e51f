"""`pytest --benchmark-only` as its users know it: what is collected, what is stored, which options are refused."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.methods.registry import unsupported
from bench.record.stats import summarize
from bench.sweeps.expand import make_plan
from tests import table1
from tests.conftest import NOT_OBEYED, ROOT

ONE = "gpt2-medium and full and eager and 1x64"
HERE = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}  # xdist's, for one
WITHOUT_GPU = HERE | {"CUDA_VISIBLE_DEVICES": "", "PYTEST_ADDOPTS": "", "OMP_NUM_THREADS": "1"}


def run(*command: object) -> subprocess.CompletedProcess[str]:
    """Python in the checkout, which sees no GPU."""
    words = [sys.executable, *map(str, command)]
    return subprocess.run(words, cwd=ROOT, env=WITHOUT_GPU, capture_output=True, text=True, timeout=300)


def test_table_1_and_nothing_else_is_collected_without_torch() -> None:
    code = "import pytest, sys; status = pytest.main(['--benchmark-only', '--collect-only', '-q'])\n"
    code += "assert not {'torch', 'transformers'} & set(sys.modules); sys.exit(status)"
    done = run("-c", code)
    assert done.returncode == 0, done.stdout + done.stderr
    plan = make_plan("table1", on_cpu=True)
    wanted = {
        f"tests/test_benchmarks.py::test_time[{c.model}-{c.method}-{c.impl}-{c.batch}x{c.seq}-{p}]"
        for c in plan.cases
        for p in plan.passes
        if not unsupported(c, "cpu")
    }
    *ids, blank, counted = done.stdout.splitlines()
    assert set(ids) == wanted and len(ids) == len(wanted) > 50 and not blank
    assert counted.startswith(f"{len(wanted)} tests collected")


@pytest.mark.slow
def test_a_case_is_measured_shown_and_stored(tmp_path: Path) -> None:
    stored = [f"--benchmark-json={tmp_path}/out.json", f"--benchmark-storage={tmp_path}", "--benchmark-autosave"]
    shown = [f"--benchmark-histogram={tmp_path}/box", "--benchmark-group-by=param:method,param:pass_"]
    done = run("-m", "pytest", "--benchmark-only", "-k", ONE, *stored, *shown)
    assert done.returncode == 0, done.stdout + done.stderr
    out = done.stdout
    assert "SKIPPED" not in out and "3 passed, " in out
    assert "cases on " in out and "one thread, clock cpu-time (" in out
    (head,) = {tuple(line.split()) for line in out.splitlines() if line.startswith("Name (time in ")}
    assert head[-4:] == ("Min", "Median", "IQR", "Rounds")
    assert "benchmark 'method=full pass_=backward': 1 tests" in out
    assert len(list(tmp_path.glob("box-*.svg"))) == 3

    found = json.loads((tmp_path / "out.json").read_text())["benchmarks"]
    params = {"model": "gpt2-medium", "method": "full", "impl": "eager", "batch": 1, "length": 64}
    assert [b["params"] for b in found] == [params | {"pass_": p} for p in ("forward", "backward", "forward-backward")]
    for b in found:
        samples = summarize([s * 1e3 for s in b["stats"]["data"]])
        assert b["stats"]["median"] * 1e3 == pytest.approx(samples.median_ms)
        assert b["stats"]["rounds"] == samples.n > 4
        assert b["extra_info"]["clock"] == b["options"]["timer"] == "cpu-time" and b["extra_info"]["threads"] == 1
    forward, backward, both = (b["stats"]["data"] for b in found)
    assert both == pytest.approx([f + b for f, b in zip(forward, backward, strict=True)])

    again = run(
        "-m", "pytest_benchmark", "--storage", tmp_path, "compare", "--group-by=param:method", "--columns=median"
    )
    assert again.returncode == 0 and "benchmark 'method=full': 3 tests" in again.stdout + again.stderr, again.stderr


def test_options_that_cannot_be_obeyed_are_refused() -> None:
    values = {"timer": "time.process_time", "cprofile": "ncalls", "precision": "0.5", "confidence": "0.5"}
    given = [
        option
        if option.endswith(("gc", "warmup"))
        else f"{option}={values.get(option.removeprefix('--benchmark-'), 1)}"
        for option in NOT_OBEYED
    ]
    done = run("-m", "pytest", "--benchmark-only", *given)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith(f"ERROR: {', '.join(NOT_OBEYED)}: not obeyed here, ")


@pytest.mark.skipif(not table1.DEVICE.is_cpu, reason="on a GPU whole models follow each other")
def test_cases_take_turns(monkeypatch: pytest.MonkeyPatch, sweep_file: Path) -> None:
    """Every turn gives at least two samples, and a brief one gives a single sample."""
    monkeypatch.setattr(table1, "SECONDS", 1e-9)
    cases = make_plan(str(sweep_file), on_cpu=True).cases[:2]
    for brief, n in ((False, 2 * table1.TURNS), (True, 1)):
        found = table1.measured(cases, brief)
        for case in cases:
            assert {p: len(s) for p, s in found[case].items()} == dict.fromkeys(table1.PLAN.passes, n)


@pytest.mark.slow
def test_a_case_runs_once_where_benchmarks_are_disabled() -> None:
    done = run("-m", "pytest", "--benchmark-disable", "-k", ONE, "tests/test_benchmarks.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed, " in done.stdout and "Rounds" not in done.stdout
