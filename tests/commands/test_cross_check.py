"""The comparison with outside clocks, as far as it goes without a GPU."""

import pytest

from bench.cli import main
from bench.commands.cross_check import closing_sentence, differences, nvbench_times
from bench.devices import Device, gpus

BOARD = Device("test", "NVIDIA Test", 0)


@pytest.mark.skipif(bool(gpus()), reason="for machines without a GPU")
@pytest.mark.parametrize("flags", [[], ["--gpu", "cpu"]])
def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str], flags: list[str]) -> None:
    with pytest.raises(SystemExit) as e:
        main(["cross-check", *flags])
    assert e.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith("error: --gpu") and "needs an NVIDIA GPU" in err and err.count("\n") == 1


def test_what_nvbench_writes_is_read() -> None:
    def state(**tags: str) -> dict[str, object]:
        data = [{"name": "value", "type": "float64"}]
        return {
            "summaries": [{"tag": f"nv/cold/time/gpu/{t}", "data": [data[0] | {"value": v}]} for t, v in tags.items()]
        }

    result = {
        "benchmarks": [
            {"name": "abc forward", "states": [state(mean="0.0021", median="0.002")]},
            {"name": "abc forward-backward", "states": [state(mean="0.006")]},
            {"name": "def forward", "states": [{"is_skipped": True, "summaries": None}]},
        ]
    }
    assert nvbench_times(result) == {("abc", "forward"): 2.0, ("abc", "forward-backward"): 6.0}


def test_differences_are_to_device_in_percent() -> None:
    times = {
        ("a", "forward"): {"device": 2.0, "do_bench": 2.02, "graph": 1.8},
        ("b", "forward"): {"device": 0.01, "do_bench": 0.02},
        ("c", "forward"): {"do_bench": 1.0},
    }
    found = differences(times)
    assert found["a", "forward"] == pytest.approx({"do_bench": 1.0, "graph": -10.0})
    assert ("c", "forward") not in found
    assert closing_sentence(times, BOARD) == (
        "On calls above 1 ms, clock device and do_bench differ by at most 1.00 % on NVIDIA Test."
    )
    assert "No call takes 1 ms" in closing_sentence({("b", "forward"): times["b", "forward"]}, BOARD)
