"""The plan of a campaign fits into its time, by the model of what comparisons take."""

from itertools import accumulate

import pytest

from bench.commands.campaign import REPORT_S
from bench.commands.campaign.need import needs
from bench.commands.campaign.stages import STAGES
from bench.devices import Device

BOARDS = {
    "h100": Device("h100", "NVIDIA H100 80GB HBM3", 0, "GPU-1", "580.1", 132, 81559),
    "h200": Device("h200", "NVIDIA H200", 0, "GPU-1", "580.1", 132, 143771),
}


@pytest.mark.parametrize("key", BOARDS)
def test_a_campaign_of_25_minutes_ends_in_complete_tables(key: str) -> None:
    """On a GPU that nobody has run this on: an estimate. Where it fails, cut the stages or raise the time."""
    found = needs(BOARDS[key])
    ends = dict(zip(found, accumulate(found.values()), strict=True))
    plan = ", ".join(f"{name} {seconds:.0f} s until {ends[name]:.0f}" for name, seconds in found.items())
    assert tuple(found) == STAGES and ends["report"] <= 25 * 60 - REPORT_S, plan
    assert ends["table1"] <= 12 * 60, plan
