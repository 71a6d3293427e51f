"""What each documented command of another module or program must do here."""

import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path

import pytest

from bench.devices import gpus
from tests.conftest import ROOT
from tests.documented.pages import Command
from tests.documented.place import Place
from tests.documented.subcommands import SUBCOMMANDS, parsed

BESIDE = Path(sys.executable).parent  # where an environment keeps the programs of its packages
WIDE = {"COLUMNS": "200"}


def plots(place: Place, arguments: list[str]) -> None:
    from plots.__main__ import main

    if "runs/*" in arguments:  # what a training leaves; the parser refuses with SystemExit, main with 2
        assert main(arguments) == 2
        return
    for page in (a for a in arguments if a.startswith("docs/")):
        (place.folder / "docs").mkdir()
        shutil.copy(ROOT / page, place.folder / page)
        place.predict("a100", "DIR")
    assert main(place.put(arguments)) == 0
    if sum(a.startswith("results/") for a in arguments) > 1 and "runs/*" not in arguments:
        assert (place.folder / "results" / "boards" / "boards.html").is_file()


def tune(place: Place, arguments: list[str]) -> None:
    from kernels.tune.__main__ import main

    if not gpus():
        assert main(arguments) == (0 if "--list" in arguments else 2)


def audit(place: Place, arguments: list[str]) -> None:
    from kernels.audit.__main__ import main

    refused_for_its_jobs(main, arguments)


def zoo(place: Place, arguments: list[str]) -> None:
    from kernels.zoo.__main__ import main

    refused_for_its_jobs(main, arguments)


def refused_for_its_jobs(main: Callable[[list[str]], int], arguments: list[str]) -> None:
    """All else is accepted, and nothing is compiled or tried, which takes minutes."""
    told = io.StringIO()
    with pytest.raises(SystemExit), redirect_stderr(told):
        main([*arguments, "--jobs", "0"])
    assert "--jobs" in told.getvalue().splitlines()[-1], told.getvalue()


def schemas(place: Place, arguments: list[str]) -> None:
    """What it writes is what is there."""
    written = place.folder / "schemas"
    subprocess.run([sys.executable, "-m", "bench.record.schema", written], cwd=ROOT, check=True)
    assert list(written.iterdir())
    assert all(path.read_text() == (ROOT / arguments[0] / path.name).read_text() for path in written.iterdir())


def table(command: Command) -> None:
    """It prints what its page has."""
    program = [sys.executable, "-m", str(command.module)]
    printed = subprocess.run(program, cwd=ROOT, capture_output=True, text=True).stdout
    page = (ROOT / "docs" / TABLES[str(command.module)]).read_text()
    assert printed and all(part.strip() in page for part in printed.split("\n\n"))


MODULES = {
    "plots": plots,
    "kernels.tune": tune,
    "kernels.audit": audit,
    "kernels.zoo": zoo,
    "bench.record.schema": schemas,
}
TABLES = {
    "bench.case.columns": "columns.md", "bench.case.causes": "why.md", "bench.case.predictions": "predict.md",
    "bench.sweeps.costs": "methods.md",
}  # fmt: skip


def make(command: Command) -> None:
    """The target is there, make knows each variable, and the recipe's own commands are accepted."""
    done = subprocess.run(["make", "-n", *command.arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    makefile = (ROOT / "Makefile").read_text()
    for name in re.findall(r"([A-Z]+)=", command.text):
        assert re.search(rf"\$\({name}\)|ifdef {name}\b", makefile), name
    for line in re.findall(r"-m bench ([^;|&)>\n]+)", done.stdout):
        name, *given = shlex.split(line)
        parsed(name, given)


def pytest_(command: Command) -> None:
    program = [sys.executable, "-m", "pytest", "-q", "--collect-only", "-p", "no:cacheprovider", *command.arguments]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")} | command.variables
    done = subprocess.run(program, cwd=ROOT, env=kept, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


def hub(command: Command) -> None:
    """hf knows the command and its options; nothing is fetched."""
    options = [a for a in command.arguments if a.startswith("--")]
    path = command.arguments[: 2 if command.arguments[0] == "auth" else 1]
    told = subprocess.run([BESIDE / "hf", *path, "--help"], capture_output=True, text=True, env=os.environ | WIDE)
    assert told.returncode == 0 and all(re.search(rf"{o}\b", told.stdout) for o in options), told.stdout


def tensorboard(command: Command) -> None:
    told = subprocess.run([BESIDE / "tensorboard", "--help"], capture_output=True, text=True).stdout
    assert all(a in told for a in command.arguments if a.startswith("--"))


def torchrun(command: Command) -> None:
    from torch.distributed.run import get_args_parser

    asked = get_args_parser().parse_args(command.words[1:])
    assert asked.module and asked.training_script == "bench"
    parsed(asked.training_script_args[0], asked.training_script_args[1:])


def pip(command: Command) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(re.findall(r"\.\[([\w-]+)\]", command.text)) <= set(extras)
    assert (ROOT / command.arguments[command.arguments.index("-c") + 1]).is_file()


def shell(command: Command) -> None:
    """Nothing of ours; but a loop over strategies names those that are there."""
    if command.words[0] == "for":
        names = [w.rstrip(";") for w in command.words[3:-1]]
        assert all((ROOT / "bench" / "train" / "strategies" / f"{name}.yaml").is_file() for name in names)


PROGRAMS = {
    "make": make,
    "pytest": pytest_,
    "hf": hub,
    "tensorboard": tensorboard,
    "torchrun": torchrun,
    "pip": pip,
} | dict.fromkeys(("source", "for", "done"), shell)


def check(command: Command, place: Place) -> None:
    """Whether a command does what it says. Raises AssertionError where it does not, or is of no kind that is known."""
    unknown = f"{command.page}: {command.text} is of no kind that this test knows"
    for name in command.variables:
        sources = (path for folder in ("bench", "kernels") for path in (ROOT / folder).rglob("*.py"))
        assert any(name in path.read_text() for path in sources), f"nothing reads {name}"
    if command.module == "bench" and command.words[0] != "torchrun":
        name, *given = command.arguments or ["list"]
        assert name in SUBCOMMANDS, unknown
        SUBCOMMANDS[name](place, [name, *given])
    elif command.module in TABLES:
        table(command)
    elif command.module in MODULES:
        MODULES[command.module](place, command.arguments)
    else:
        assert command.words[0] in PROGRAMS, unknown
        PROGRAMS[command.words[0]](command)
