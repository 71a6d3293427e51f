"""How busy the machine is with other work, on fake counters and for real."""

from collections import namedtuple

import psutil
import pytest

from bench.busy import QUIET, busy_cores, sentence, wait_quiet

CpuTimes = namedtuple("CpuTimes", "user nice system idle iowait irq softirq steal guest guest_nice")
CORES = psutil.cpu_count() or 1


@pytest.mark.parametrize(
    ("spent", "share"),
    [
        ({"idle": 1.5, "iowait": 0.5}, 0.0),
        ({"user": 1.0, "idle": 1.0}, 0.5),
        ({"steal": 0.5, "system": 0.5, "idle": 1.0}, 0.5),  # what a hypervisor took is not ours either
        ({"user": 1.0, "guest": 1.0, "idle": 1.0}, 0.5),  # Linux counts a guest's time in user as well
    ],
)
def test_busy_cores_by_hand(spent: dict[str, float], share: float) -> None:
    start = CpuTimes(*range(100, 110))
    reads = iter([start, start._replace(**{kind: getattr(start, kind) + s for kind, s in spent.items()})])
    assert busy_cores(1.0, lambda: next(reads), lambda _s: None) == pytest.approx(share * CORES)


def test_busy_cores_of_this_machine() -> None:
    assert 0.0 <= busy_cores(0.2) <= CORES


def test_waits_for_three_quiet_seconds_in_a_row() -> None:
    looks = iter([1.4, 0.0, 0.1, 0.9, 0.0, QUIET, 0.0])
    said: list[str] = []
    assert wait_quiet(60, said.append, lambda: next(looks))
    assert said == [f"{sentence(1.4)}; waiting for rest, 1:00 at most"]
    assert next(looks, None) is None, "not a second longer than that"


def test_a_machine_that_never_rests_is_measured_all_the_same_and_said_so() -> None:
    looks = []
    said: list[str] = []

    def look() -> float:
        looks.append(1)
        return 1.0

    assert not wait_quiet(20, said.append, look)
    assert len(looks) == 20 and said[-1].startswith("the machine did not come to rest within 20 s")
