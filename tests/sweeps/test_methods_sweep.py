"""The sweep `methods`, and what is measured on a CPU alone: entries under cpu.methods, whose own axes win."""

from dataclasses import replace
from pathlib import Path

import pytest

from bench.case import Case
from bench.errors import UserError
from bench.methods.registry import methods, unsupported
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


def test_the_sweep_of_methods_has_every_method_and_option() -> None:
    cases = make_plan("methods", on_cpu=False).cases
    assert {c.model for c in cases} == {"gpt2-medium", "gpt2-xl", "tinyllama"}
    assert {(c.level, c.batch, c.seq, c.precision) for c in cases} == {("model", 4, 512, "bf16")}
    wanted = {"full", "lora", "dora", "lora-fa", "qlora", "paca", "qpaca", "bitfit"}
    assert {c.method for c in cases if c.impl == "eager"} == wanted == {*methods()}
    assert not any(c.dropout for c in cases), "equal footing"
    assert {c.trainable_layers for c in cases} == {"all", "lisa-2", "every-2nd"}
    for axis, words in {
        "scaling": {None, "rslora"}, "gradient_checkpointing": {None, "full", "selective"},
        "optimizer": {None, "adamw-8bit", "paged-adamw", "sgd"}, "compile": {None, "default"},
    }.items():  # fmt: skip
        assert {getattr(c, axis) for c in cases} == words
    for case in cases:  # what an option costs is told beside the case without it
        plain = replace(case, gradient_checkpointing=None, optimizer=None, compile=None, trainable_layers="all")
        assert plain in cases


def test_a_cpu_measures_every_row_or_says_in_a_line_why_not() -> None:
    gpu, cpu = (make_plan("methods", on_cpu=on_cpu).cases for on_cpu in (False, True))

    def kinds(cases: tuple[Case, ...]) -> set[tuple[object, ...]]:
        """What differs in how a case trains; in fp32 PEFT's two forms are one."""
        axes = ("method", "impl", "trainable_layers", "scaling", "gradient_checkpointing", "optimizer", "compile")
        return {tuple(getattr(c, axis) for axis in axes) for c in cases}

    assert kinds(gpu) <= kinds(cpu)
    for case in cpu:
        reason = unsupported(case, "cpu")
        assert reason is None or ("\n" not in reason and len(reason) < 150)
    assert all(c.level == "model" for c in cpu if c.trainable_layers != "all")
    for case in cpu:  # so that ratios to Full-FT and LoRA can be formed
        assert {"full", "lora"} <= {c.method for c in cpu if c.alike == case.alike and c.impl == "eager"}
