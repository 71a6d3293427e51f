"""What all tests share: the command line as a person runs it, and small sweeps."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
os.environ["OMP_NUM_THREADS"] = "1"  # before anything that computes is imported; see one_thread

SWEEP = """
description: two squares, three methods
axes: {level: linear, layer: [square-48, square-64], batch: 1, seq: 16, precision: fp32}
methods:
  - {method: full}
  - {method: lora, rank: 4, alpha: 8}
  - {method: paca, rank: 4, alpha: 8}
measure: {min_samples: 8, budget_s: 0.05, wall_s: 1, warmup_s: 0.01, warmup_calls: 1}
"""

QUICK_SWEEP = """
description: two cases
axes: {level: linear, layer: square-16, batch: 1, seq: [4, 8], precision: fp32}
methods: [{method: full}]
passes: [forward]
measure: {budget_s: 0.01, wall_s: 0.2, warmup_s: 0.001, warmup_max_s: 0.01, min_time_s: 0.001}
"""

BENCHMARKS = ROOT / "tests" / "test_benchmarks.py"
# Options of pytest-benchmark that say how to sample. Our sampler decides that, by the sweep's own constants.
NOT_OBEYED = tuple(
    f"--benchmark-{name}"
    for name in (
        "min-time", "max-time", "min-rounds", "precision", "confidence", "timer", "calibration-precision", "warmup",
        "warmup-iterations", "disable-gc", "cprofile", "cprofile-loops", "cprofile-top", "cprofile-dump",
    )
)  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    """Refuses what could not be obeyed, before anything is collected; tests keep what they cache to themselves."""
    if "LORABENCH_CACHE" not in os.environ:
        os.environ["LORABENCH_CACHE"] = made = tempfile.mkdtemp(prefix="lorabench-cache-")
        config.add_cleanup(lambda: shutil.rmtree(made, ignore_errors=True))
    words = [*config.invocation_params.args, *shlex.split(os.environ.get("PYTEST_ADDOPTS", ""))]
    given = {str(word).partition("=")[0] for word in words}
    if refused := [option for option in NOT_OBEYED if option in given]:
        raise pytest.UsageError(
            f"{', '.join(refused)}: not obeyed here, since the samples come from the sampler of `python -m bench`."
            " Leave the option out. For longer measurements there is `python -m bench run table1`."
        )
    if config.getoption("benchmark_histogram") and find_spec("pygal") is None:
        raise pytest.UsageError("--benchmark-histogram needs pygal: pip install 'pytest-benchmark[histogram]'")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Under --benchmark-only nothing but the benchmarks is even imported."""
    only = config.getoption("benchmark_only")
    return True if only and not BENCHMARKS.is_relative_to(collection_path) else None


def pytest_report_header(config: pytest.Config) -> str | None:
    """What is measured under --benchmark-only, and on what."""
    if not config.getoption("benchmark_only"):
        return None
    from tests.table1 import described

    return described()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """GPU tests are skipped where NVML finds no GPU; torch is not asked, so that collecting stays fast."""
    from bench.devices import gpus

    if not gpus():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs an NVIDIA GPU"))


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    """The GPU in pytest-benchmark's own record."""
    from bench.devices import choose, gpus

    device = choose("auto", gpus())
    machine_info["gpu"] = {"name": device.name, "driver": device.driver, "key": device.key}


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Tests and benchmarks compute on one thread, and so do the processes they start: on a busy machine more threads
    only wait for one another. Those processes heed the signals that the tests send them."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):  # nohup and a shell's & have them ignored
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture
def sweep_file(tmp_path: Path) -> Path:
    """A sweep of six cases that takes a second to measure."""
    path = tmp_path / "small.yaml"
    path.write_text(SWEEP)
    return path


class Bench:
    """`python -m bench` in a process of its own, with device locks of its own."""

    def __init__(self, tmp_path: Path) -> None:
        self.env = os.environ | {
            "LORABENCH_LOCKS": str(tmp_path), "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"
        }  # fmt: skip

    def command(self, *arguments: object) -> list[str]:
        return [sys.executable, "-m", "bench", *map(str, arguments)]

    def __call__(self, *arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
        options = {"cwd": ROOT, "env": self.env, "capture_output": True, "text": True, "timeout": 300} | options
        return subprocess.run(self.command(*arguments), **options)

    def plots(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """`python -m plots`, from the checkout."""
        command = [sys.executable, "-m", "plots", *map(str, arguments)]
        return subprocess.run(command, cwd=ROOT, env=self.env, capture_output=True, text=True, timeout=300)

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        """The same without waiting for its end."""
        return subprocess.Popen(
            self.command(*arguments), cwd=ROOT, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


Cli = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    """`python -m bench` within the test's own process: a second faster, for what ends before anything is measured."""
    from bench.cli import main

    def call(*arguments: object) -> subprocess.CompletedProcess[str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main([str(a) for a in arguments])
        return subprocess.CompletedProcess(arguments, int(str(end.value.code or 0)), *capsys.readouterr())

    return call


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """All rows of a folder's record, in file order; none where there is no record yet."""
    path = folder / "rows.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def wait_for(what: Callable[[], Any], seconds: float = 60) -> Any:
    """Polls until `what` returns something true, and returns that."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := what():
            return found
        time.sleep(0.02)
    raise AssertionError("it did not happen")


def children_of(pid: int) -> list[int]:
    """Process ids of the workers of a run (Linux); git and others that it starts are none of them."""
    found = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        try:
            if b"bench.runner.worker" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(int(child))
        except OSError:
            continue
    return found


def is_running(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
