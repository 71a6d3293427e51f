"""Lines to paste: read back by a shell and by the command line, they ask for what they say."""

import os
import shlex
import subprocess
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from typer.main import get_command

from bench import again
from bench.cli import app

COMMANDS: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]

VALUES = st.sampled_from(
    ["a b", "--fresh", " --fresh", "x --fresh", "--retry", "--retry=ok", "--", "it's", "$HOME", "`x`", "\\", "ä", "*"]
)
OPTIONS = st.lists(
    st.one_of(
        st.sampled_from([["--fresh"], ["--strict"], ["--repeat", "3"], ["--repeat=2"], ["--threads", "2"]]),
        st.tuples(st.sampled_from(["--out", "--where", "--gpu", "--retry", "--model", "--seq"]), VALUES).map(list),
        st.tuples(st.sampled_from(["--out", "--where", "--gpu", "--retry"]), VALUES).map(lambda x: ["=".join(x)]),
    ),
    max_size=6,
)
SWEEPS = st.sampled_from([[], ["table1"], ["my sweeps/a --fresh.yaml"], ["--", "--fresh"], ["--", "x"]])


def asked(line: str) -> dict[str, Any]:
    """What a pasted line asks for."""
    words = shlex.split(line)
    assert words[:3] == ["python", "-m", "bench"]
    return dict(COMMANDS[words[3]].make_context(words[3], words[4:]).params)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(options=OPTIONS, sweep=SWEEPS, first=st.booleans())
@example(options=[["--out", "--fresh"], ["--fresh"], ["--retry", "--fresh"]], sweep=["--", "--fresh"], first=False)
def test_pasted_lines_ask_for_the_same_run(
    options: list[list[str]], sweep: list[str], first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [w for option in options for w in option]
    words = [*sweep, *words] if first and "--" not in sweep else [*words, *sweep]
    monkeypatch.setattr("sys.argv", ["bench/__main__.py", "run", *words])
    mine = asked(again.command_line())
    assert asked(again.to_go_on()) == mine | {"fresh": False}
    assert asked(again.to_retry(["error", "oom"])) == mine | {"fresh": False, "retry": "error,oom"}
    listed = asked(again.to_list())
    assert listed == {name: mine[name] for name in listed}


@pytest.mark.parametrize("name", [b"\xff", b"a b\x1b[2J", b"it's\\x41\x9b", b"$'\\xff'", "ä\u202e".encode(), b"x\ny"])
def test_a_path_that_no_terminal_shows_is_pasted_as_its_bytes(name: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["bench/__main__.py", "run", os.fsdecode(name)])
    line = again.command_line()
    assert line.isprintable()
    argument = line.removeprefix("python -m bench run ")
    assert subprocess.run(["bash", "-c", f"printf %s {argument}"], capture_output=True).stdout == name
    assert again.recorded(line, ["oom"]) == (line, f"{line} --retry oom"), "and so in a report of that run"


def test_every_option_without_a_value_is_known() -> None:
    flags = {o for c in COMMANDS.values() for p in c.params if getattr(p, "is_flag", False) for o in p.opts}
    assert flags == set(again.FLAGS)


def test_without_arguments_it_is_the_command_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["bench/__main__.py", "run"])
    assert again.to_retry(["oom"]) == "python -m bench run --retry oom" and again.to_list() == "python -m bench list"


def test_a_training_run_goes_on_with_as_many_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["train", "--fresh", "--out", "my run --fresh", "--model=a b"]
    monkeypatch.setattr("sys.argv", ["bench/__main__.py", *words])
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    kept = ["train", "--out", "my run --fresh", "--model=a b"]
    assert shlex.split(again.to_go_on_training()) == ["python", "-m", "bench", *kept]
    for name, value in {"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "GROUP_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    several = ["torchrun", "--nnodes", "2", "--nproc-per-node", "2", "-m", "bench"]
    assert shlex.split(again.to_go_on_training()) == [*several, *kept]
