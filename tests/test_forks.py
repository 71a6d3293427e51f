"""Work on several cores: in order, and whole whatever becomes of a fork."""

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

# In a process of its own, since a test's has threads and torch.
CODE = """
import os, sys
from contextlib import closing
from bench.forks import mapped
here = os.getpid()
def work(part):
    if part == 7 and os.getpid() != here: os._exit(1)
    if part == 12: raise ValueError(part, os.getpid() == here)
    return part, os.getpid()
parts = list(range(12))
alone, found = list(mapped(work, parts, False)), list(mapped(work, parts, True))
assert [p for p, _ in alone] == [p for p, _ in found] == parts
assert {pid for _, pid in alone} == {here} and found[7][1] == here
assert len({pid for _, pid in found} - {here}) == min(len(os.sched_getaffinity(0)), 4)
with closing(mapped(work, [1, 2, 12, 3], True)) as made:
    assert [next(made)[0], next(made)[0]] == [1, 2]
    try: next(made)
    except ValueError as e: assert e.args == (12, True)
    else: sys.exit("nothing was raised")
"""


@pytest.mark.skipif(
    sys.platform != "linux" or len(os.sched_getaffinity(0)) < 2, reason="forks need several cores, and Linux"
)
def test_parts_come_in_order_and_what_a_fork_fails_at_is_done_here() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
