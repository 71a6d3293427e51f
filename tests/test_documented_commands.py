"""Every command of README, CONTRIBUTING and docs/ does what it says, as far as this machine can show it: it runs on a
small folder or sweep where that takes seconds. Where it takes a GPU, the network or minutes, the program's own parser
accepts all of it, its cases are listed, or it says what is missing here."""

import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from bench.cli import app
from bench.devices import gpus
from bench.errors import UserError
from bench.terminal import seconds_of
from tests.conftest import QUICK_SWEEP, ROOT, SWEEP, Bench, Cli
from tests.documented import Command, every_command

BENCH = typer.main.get_command(app).commands
REFERENCE = ROOT / "results" / "cpu" / "reference" / "table1"
HOST = "12.5"  # microseconds; given, so that nothing is measured
HUB_ID, NAMED = "Qwen/Qwen3-8B", "qwen3-8b"  # what the pages name, and the same without the network
COMMANDS = every_command()


def parsed(name: str, arguments: list[str]) -> dict:
    """The options as a command's own parser understands them. A quoted name alone is only looked up."""
    assert name in BENCH, f"python -m bench has no command {name}"
    return BENCH[name].make_context(name, list(arguments)).params if arguments else {}


class Place:
    """An empty folder that the commands run in, with what they name put there when they do."""

    def __init__(self, folder: Path, cli: Cli) -> None:
        self.folder, self.cli = folder, cli
        (folder / "my.yaml").write_text(SWEEP)

    def put(self, arguments: list[str]) -> list[str]:
        """Makes each results folder that is named: one case size of the published Table 1, or a prediction."""
        for word in arguments:
            if not re.fullmatch(r"DIR(_[AB])?|results/\S+", word) or (self.folder / word).exists():
                continue
            if "predicted" in word:
                self.predict("a100", word)
                continue
            (self.folder / word).mkdir(parents=True)
            for name in ("run.json", "causes.csv"):
                shutil.copy(REFERENCE / name, self.folder / word)
            lines = (REFERENCE / "rows.jsonl").read_text().splitlines(keepends=True)
            kept = [line for line in lines if '"gpt2-xl"' in line and '"seq": 128' in line]
            (self.folder / word / "rows.jsonl").write_text("".join(kept))
        return arguments

    def predict(self, boards: str, out: str, *options: str) -> None:
        done = self.cli("predict", "my.yaml", "--gpu", boards, "--out", out, "--host-us", HOST, *options)
        assert done.returncode == 0, done.stderr


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli) -> Place:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LORABENCH_LOCKS", str(tmp_path))
    return Place(tmp_path, cli)


def as_it_stands(place: Place, arguments: list[str]) -> None:
    parsed(arguments[0], arguments[1:])
    if len(arguments) == 1 and arguments[0] not in ("doctor", "list"):
        return
    done = place.cli(*(NAMED if a == HUB_ID else a for a in place.put(arguments)))
    assert done.returncode == 0 or arguments == ["doctor"], done.stderr
    assert done.stdout


def its_cases(place: Place, arguments: list[str]) -> None:
    """What it would measure is listed; and a GPU that is not here is refused by name."""
    options = parsed(arguments[0], arguments[1:])
    if options.get("gpu", "auto") != "auto" and not gpus():
        done = place.cli(*arguments)
        assert done.returncode == 2 and "Found: no NVIDIA GPU" in done.stderr, done.stderr
    known = [p.name for p in BENCH["list"].params]
    if options:
        options |= {"gpu": "auto", "model": NAMED if options.get("model") == HUB_ID else options.get("model")}
        BENCH["list"].callback(**{name: options[name] for name in known if name in options})


def predicted(place: Place, arguments: list[str]) -> None:
    """The boards, host and clock are taken for a small sweep."""
    options = parsed(arguments[0], arguments[1:])
    if not options.get("check"):
        place.predict(options["gpu"], "out", *(["--clock", options["clock"]] if options["clock"] else []))
        assert (place.folder / "out" / "predictions.csv").is_file()


def needs_a_gpu(place: Place, arguments: list[str]) -> None:
    parsed(arguments[0], arguments[1:])
    if not gpus():
        done = place.cli(*arguments)
        assert done.returncode == 2 and "NVIDIA GPU" in done.stderr


def only_parsed(place: Place, arguments: list[str]) -> None:
    """Minutes, or the network: the tests of these commands run them at a smaller size."""
    options = parsed(arguments[0], arguments[1:])
    if time := options.get("time"):
        assert seconds_of("--time", time) > 0
    if (strategy := options.get("strategy")) and "$" not in strategy:
        assert (ROOT / "bench" / "train" / "strategies" / f"{strategy}.yaml").is_file()


def compared(place: Place, arguments: list[str]) -> None:
    if "--run" in arguments:
        only_parsed(place, arguments)
    else:
        as_it_stands(place, arguments)


def explained(place: Place, arguments: list[str]) -> None:
    if "--trace" in arguments:  # profiles each case anew
        only_parsed(place, arguments)
    else:
        as_it_stands(place, arguments)


SUBCOMMANDS: dict[str, Callable[[Place, list[str]], None]] = {
    "run": its_cases,
    "list": as_it_stands,
    "doctor": as_it_stands,
    "spread": as_it_stands,
    "compare": compared,
    "why": explained,
    "predict": predicted,
    "precompile": needs_a_gpu,
    "cross-check": needs_a_gpu,
    "campaign": only_parsed,
    "train": only_parsed,
    "evaluate": only_parsed,
    "advise": only_parsed,
}
