"""Tuned tiles are part of the identity of the rows that ran under them, and of no others."""

import json
import shutil
from pathlib import Path

from bench.devices import cpu_device
from tests.conftest import ROOT, Bench, rows_of

TOY = ROOT / "tests" / "methods" / "toy"


def test_new_tiles_open_the_rows_of_our_kernels_alone(bench: Bench, sweep_file: Path, tmp_path: Path) -> None:
    """Our kernels run on GPUs alone; a method from outside that says its impl is tuned stands in for them."""
    shutil.copytree(TOY, tmp_path / "toy")
    method = (tmp_path / "toy" / "method.py").read_text()
    tuned = method.replace('Impl("LoRA with A frozen")', 'Impl("LoRA with A frozen", tuned=True)')
    assert tuned != method
    (tmp_path / "toy" / "method.py").write_text(tuned)
    sweep_file.write_text(sweep_file.read_text().replace("method: lora", "method: toy"))
    tiles = tmp_path / "tuned"
    tiles.mkdir()
    bench.env |= {"LORABENCH_METHODS": str(tmp_path / "toy"), "LORABENCH_TUNED": str(tiles)}
    out = tmp_path / "out"
    command = ("run", sweep_file, "--out", out, "--where", "layer=square-48")

    first = bench(*command)
    assert first.returncode == 0 and "3 of 3 cases to measure" in first.stderr, first.stderr
    assert {r["tuned"] for r in rows_of(out)} == {None}

    (tiles / "other.json").write_text(json.dumps({"device": "another device", "entries": []}))
    assert "0 of 3 cases to measure" in bench(*command).stderr

    (tiles / "cpu.json").write_text(json.dumps({"device": cpu_device().name, "entries": []}))
    again = bench(*command)
    assert again.returncode == 0 and "1 of 3 cases to measure" in again.stderr, again.stderr
    new = rows_of(out)[9:]
    assert {r["method"] for r in new} == {"toy"} and len({r["tuned"] for r in new}) == 1 and new[0]["tuned"]
    assert "0 of 3 cases to measure" in bench(*command).stderr
