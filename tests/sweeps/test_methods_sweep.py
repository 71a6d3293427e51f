"""What is measured on a CPU alone: entries under cpu.methods, whose own axes win."""

from pathlib import Path

import pytest

from bench.errors import UserError
from bench.sweeps.expand import make_plan

OWN = """
axes: {level: model, model: gpt2-medium, batch: 4, seq: 512}
methods: [{method: full}]
cpu:
  axes: {level: block, batch: 1, seq: 16}
  methods:
    - {method: full, level: model, model: tinyllama-4-blocks, trainable_layers: upper-1/2}
"""


def test_entries_under_cpu_are_measured_there_alone_and_their_axes_win(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(OWN)
    block, layers = make_plan(str(path), on_cpu=True).cases
    assert (block.level, block.model, block.seq, block.trainable_layers) == ("block", "gpt2-medium", 16, "all")
    assert (layers.level, layers.model, layers.seq) == ("model", "tinyllama-4-blocks", 16)
    assert layers.trainable_layers == "upper-1/2"
    assert len(make_plan(str(path), on_cpu=False).cases) == 1


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [("upper-1/2", "upper-9/2", 7), ("seq: 16", "seq: 9999", 5), ("method: full, level", "method: all, level", 7)],
)
def test_what_is_wrong_there_is_named_by_its_line(tmp_path: Path, old: str, new: str, line: int) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(OWN.replace(old, new, 1))
    with pytest.raises(UserError, match=rf"own\.yaml:{line}: "):
        make_plan(str(path), on_cpu=True)
