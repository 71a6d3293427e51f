"""`bench list` for a GPU that is not here."""

from pathlib import Path

import pytest

from bench import terminal
from bench.commands import list as list_command
from tests.conftest import Cli

LARGE = """
description: 7 billion weights, all trained or few
axes: {level: model, model: llama2-7b, batch: 8, seq: 512}
methods: [{method: full}, {method: paca, impl: triton, rank: 16, alpha: 64}]
passes: [step]
"""


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


def test_a_gpu_that_is_not_here_is_listed_as_such(cli: Cli) -> None:
    done = cli("list", "table1", "--gpu", "a100")
    *table, what, _, elsewhere = done.stdout.splitlines()
    assert done.returncode == 0 and len(table) == 1 + 36
    assert what.startswith("table1 on A100-SXM4-40GB: 36 cases, 324 rows") and "clock eager, graph" in what
    assert elsewhere.startswith("A100-SXM4-40GB is not on this machine: its 40 GiB are those of bench/gpus.yaml")
    assert "a100-sxm4-80gb, a100-pcie-40gb, a100-80gb-pcie: name one" in elsewhere
    assert " block " not in done.stdout and "needs an NVIDIA GPU" not in done.stdout
    assert "not on this machine" not in cli("list", "table1").stdout


def test_notes_are_those_of_its_memory(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "large.yaml"
    path.write_text(LARGE)

    def notes(gpu: str) -> list[str]:
        """What stands in the last column, for Full-FT and for PaCA."""
        table = cli("list", path, "--gpu", gpu).stdout.splitlines()
        column = table[0].index("note")
        return [line[column:].strip() for line in table[1:3]]

    full, paca = notes("rtx4090")
    assert full.startswith("oom: needs at least 50.2 GiB (weights 12.6 GiB") and full.endswith("the GPU has 24 GiB")
    assert paca == "may not fit: the GPU has 24 GiB"
    assert notes("a100-80gb-pcie") == ["", ""]


@pytest.mark.parametrize("gpu", ["a100x", "zx81", "A100"])
def test_an_unknown_gpu_is_refused(cli: Cli, gpu: str) -> None:
    done = cli("list", "table1", "--gpu", gpu)
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.startswith(f"error: --gpu {gpu}: not on this machine.") and "Known keys: a100" in done.stderr


OPTIONS = """
axes: {level: model, model: [gpt2-medium, tinyllama], batch: 4, seq: 512}
methods:
  - {method: full}
  - {method: lora, rank: 8, alpha: 32, gradient_checkpointing: [none, full, selective]}
  - {method: paca, impl: triton, rank: 16, alpha: 64}
passes: [step]
"""


@pytest.mark.parametrize("width", [80, 120])
def test_on_a_narrow_terminal_nothing_is_cut(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    """A table for each comparison, options in words, a number in place of each note."""
    (tmp_path / "own.yaml").write_text(OPTIONS)
    ids = [line.split()[0] for line in cli("list", tmp_path / "own.yaml", "--gpu", "cpu").stdout.splitlines()[1:11]]

    def narrow() -> terminal.Output:
        return terminal.Output(highlight=False, width=width, force_terminal=True, color_system=None)

    monkeypatch.setattr(list_command, "output", narrow)
    text = cli("list", tmp_path / "own.yaml", "--gpu", "cpu").stdout
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    assert [i for i in ids if i in text] == ids and len({*ids}) == 10
    assert lines[0] == "gpt2-medium, level model, fp32 4x512; memory in GiB"
    assert lines[1].split() == ["case_id", "training", "trained", "min", "peak"]
    again = next(line for line in lines if "checkpointing-selective" in line)
    assert again.split()[:5] == [again.split()[0], "lora/eager", "r8", "checkpointing-selective", "3.15M"]
    kernels = [line for line in lines if "paca/triton" in line]
    assert len(kernels) == 2 and all(line.endswith("(1)") for line in kernels)
    assert lines.count("(1) unsupported: impl triton needs an NVIDIA GPU") == 1
