"""Every command of README, CONTRIBUTING and docs/ does what it says, as far as this machine can show it: it runs on a
small folder or sweep where that takes seconds. Where it takes a GPU, the network or minutes, the program's own parser
accepts all of it, its cases are listed, or it says what is missing here."""

import re
from pathlib import Path
from typing import Any

import pytest

from bench.errors import UserError
from bench.usage import UsageError
from tests.conftest import QUICK_SWEEP, ROOT, Bench, Cli
from tests.documented.pages import Command, every_command
from tests.documented.place import Place
from tests.documented.programs import check


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli) -> Place:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LORABENCH_LOCKS", str(tmp_path))
    return Place(tmp_path, cli)


def is_slow(command: Command) -> bool:
    """Collecting all tests, and drawing a page more than once."""
    return command.words[0] == "pytest" or (command.module == "plots" and "--price" not in command.words)


@pytest.mark.parametrize(
    "command", [pytest.param(c, id=c.text, marks=[pytest.mark.slow] * is_slow(c)) for c in every_command()]
)
def test_it_does_what_the_page_says(command: Command, place: Place) -> None:
    check(command, place)


def test_a_sweep_of_ones_own_runs(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text(QUICK_SWEEP)
    done = bench("run", "my.yaml", cwd=tmp_path)
    assert done.returncode == 0 and (tmp_path / done.stdout.strip() / "rows.csv").is_file(), done.stderr


def test_the_lines_for_pandas_give_the_table_of_ratios(monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs" / "reading.md").read_text()
    lines = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)[0].strip().splitlines()
    names: dict[str, Any] = {}
    monkeypatch.chdir(ROOT)
    exec("\n".join(lines[:-1]), names)
    table = eval(lines[-1], names)
    ratio = table.loc[("gpt2-xl", "lora", "peft"), (1, 128)]  # as many digits as its interval allows
    assert any(f"| {ratio:.{digits}f} [" in page for digits in (3, 4))


@pytest.mark.parametrize(
    "text",
    [
        "python -m bench measure",
        "python -m bench run table1 --wher model=tinyllama",
        "python -m bench run table1 --where model=no-such-model",
        "python -m bench list no-such-sweep",
        "python -m bench run --model Qwen/Qwen3-8B --batch none",
        "python -m bench compare --run none A B",
        "python -m bench predict table1 --gpu no-such-board",
        "python -m plots DIR --prize 1.80",
        "python -m plots.nothing",
        "python -m kernels.audit --estimate --shape wide",
        "make no-such-target",
        "make bench GPUS=a100",
        "NO_SUCH_VARIABLE=1 make bench",
        "torchrun --nproc-per-node 4 -m bench train --strategies paca",
        "pip install -c constraints.txt -e .[no-such-extra]",
        "cargo run",
    ],
)
def test_a_command_that_does_not_exist_is_noticed(text: str, place: Place) -> None:
    with pytest.raises((AssertionError, SystemExit, UsageError, UserError)):
        check(Command("README.md", text), place)
