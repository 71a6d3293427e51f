"""What the GPU did while it was measured, and where the wall time went, each in one line."""

from typing import Any

from tests.plots.reading import draw_tables

TYPES = [("full", "eager"), ("lora", "eager"), ("paca", "eager")]
ONE = ("gpt2-xl",)


def test_the_state_of_the_gpu_is_one_line(maker: Any, fill_clocks: Any) -> None:
    fill_clocks(maker, TYPES, [(4, 512)], models=ONE)
    for i, row in enumerate(maker.rows):
        row |= {"sm_clock_mhz": 1700 + 10 * i, "power_w": 400.4, "temperature_c": None if i else 55}
    top = 1700 + 10 * (len(maker.rows) - 1)
    state = f"SM clock 1700 to {top} MHz, power 400 W, temperature 55 °C; clocks "
    for run, word in (
        ({"clocks_locked": True}, "locked"),
        ({"clocks_locked": False}, "not locked"),
        ({"clocks_locked": None}, "not known to be locked"),
        ({"gpu_clocks": {"locked": True, "sm_max_mhz": 1980}}, "locked"),
    ):
        maker.run = {k: v for k, v in maker.run.items() if k not in ("clocks_locked", "gpu_clocks")} | run
        draw_tables(maker)
        text = (maker.path / "report.md").read_text()
        assert f"The GPU while measuring, over all rows: {state}{word}." in text
        assert f"\n- clocks {word}\n- measured" in text


def test_where_the_wall_time_went_is_one_line(maker: Any, fill_clocks: Any) -> None:
    fill_clocks(maker, TYPES, [(4, 512)], models=ONE)
    first = maker.run["invocations"][0]
    maker.run["invocations"] = [
        first | {"spent_s": {"starting": 20.0, "measuring": 100.0}},
        first | {"spent_s": {"measuring": 78.0, "waiting": 2.0}},
    ]
    draw_tables(maker)
    told = (
        "time went into: measuring 178 s (89 %), starting 20 s (10 %), waiting 2.0 s (1 %); 13 min from start to finish"
    )
    assert told in (maker.path / "report.md").read_text()
