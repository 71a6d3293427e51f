"""A pytest plugin: names a test the moment it fails, on standard error and in the file that LORABENCH_FAILURES names,
so that a run that is cut off has named its failures. SIGTERM ends pytest as Ctrl-C does, with its summary.

The campaign runs the GPU tests under it: pytest -p tests.failures_at_once.
"""

import os
import signal
import sys
from pathlib import Path
from types import FrameType

import pytest


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):  # a process of pytest-xdist, whose reports come to the one that started it
        config.pluginmanager.register(_AtOnce(os.environ.get("LORABENCH_FAILURES")))
        signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt("SIGTERM")


class _AtOnce:
    def __init__(self, path: str | None) -> None:
        self._path = Path(path) if path else None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._note(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._note(report)

    def _note(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if not report.failed:
            return
        print(f"\nFAILED {report.nodeid}", file=sys.stderr, flush=True)
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as out:
                out.write(f"{report.nodeid}\n")
