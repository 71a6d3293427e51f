"""Commands as processes among others: closed descriptors, readers that go away, full disks, encodings, what may not
reach a terminal, and paths that are empty or no UTF-8."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.record.read import read_run
from tests.conftest import QUICK_SWEEP, ROOT, Bench, Cli, rows_of

REFERENCE = ROOT / "results" / "cpu" / "reference" / "table1"
CLEAR = "\x1b[2J\x1b]0;owned\x07"


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(QUICK_SWEEP)
    return path


def whole(folder: Path) -> bool:
    return [row["status"] for row in rows_of(folder)] == ["ok"] * 4  # cpu-time and cpu


def shell(bench: Bench, line: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", line], cwd=ROOT, env=bench.env | {"PY": sys.executable} | env, capture_output=True, text=True,
        timeout=120, errors="surrogateescape",
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_run_measures_whatever_descriptors_it_was_started_without(
    bench: Bench, small: Path, tmp_path: Path, closed: str
) -> None:
    done = shell(bench, f"(exec $PY -m bench run {small} --out {tmp_path}/r {closed})")
    assert done.returncode == 0 and whole(tmp_path / "r")
    drawn = shell(bench, f"(exec $PY -m plots {tmp_path}/r {closed})")
    assert drawn.returncode == 0 and (tmp_path / "r" / "report.html").stat().st_size > 5_000


@pytest.mark.slow
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_goes_away_takes_nothing_along(
    bench: Bench, small: Path, tmp_path: Path, unbuffered: str
) -> None:
    """Its exit status tells of the measurement, whoever reads; and every line that can still be read is no fault."""
    gone = "| (exec <&-; sleep 3)"
    for i, line in enumerate(
        (
            f"$PY -m bench run {small} --out {tmp_path}/0 {gone}; echo ${{PIPESTATUS[0]}}",
            f"$PY -m bench run {small} --out {tmp_path}/1 2>&1 >/dev/null {gone}; echo ${{PIPESTATUS[0]}}",
            f"$PY -m bench run {small} --out {tmp_path}/2 2>&1 | head -1 >/dev/null; echo ${{PIPESTATUS[0]}}",
            f"$PY -m bench run {small} --out {tmp_path}/3 >/dev/full; echo $?",
            f"$PY -m bench run {small} --out {tmp_path}/4 2>/dev/full >/dev/null; echo $?",
        )
    ):
        done = shell(bench, line, PYTHONUNBUFFERED=unbuffered)
        assert done.stdout.splitlines()[-1] == "0" and whole(tmp_path / str(i)), line
        assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr and "Broken" not in done.stderr
    drawn = shell(bench, f"$PY -m plots {tmp_path}/0 2>&1 {gone}; echo ${{PIPESTATUS[0]}}", PYTHONUNBUFFERED=unbuffered)
    assert drawn.stdout == "0\n"


def test_what_a_command_prints_is_its_product(bench: Bench) -> None:
    """Nobody reads on: no fault. It cannot be taken: said, with exit status 2."""
    gone = shell(bench, "$PY -m bench list smoke | (exec <&-; sleep 2); echo ${PIPESTATUS[0]}")
    assert gone.stdout == "0\n" and gone.stderr == ""
    full = shell(bench, f"$PY -m bench compare {REFERENCE} {REFERENCE} >/dev/full")
    assert full.returncode == 2
    assert full.stderr == "error: standard output: No space left on device; not all was printed\n"


def test_a_terminal_that_lacks_a_sign_is_no_reason_to_stop(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(QUICK_SWEEP.replace("two cases", "zwei Quadrate zu 16²").replace("[4, 8]", "[4]"))
    for env in (
        {"PYTHONIOENCODING": "ascii"},
        {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ):
        done = shell(bench, f"$PY -m bench list {tmp_path}/s.yaml --where layer=²", **env)
        assert done.returncode == 2 and "Traceback" not in done.stderr and "is not in this sweep" in done.stderr


@pytest.mark.slow
def test_paths_that_are_no_utf_8_are_measured_into_and_drawn(bench: Bench, tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/b\xff\xfe\x1b[31m x"
    Path(os.fsdecode(folder)).mkdir()
    sweep, out = Path(os.fsdecode(folder + b"/s\xff.yaml")), Path(os.fsdecode(folder + b"/r\xff"))
    sweep.write_text(QUICK_SWEEP)
    done = subprocess.run(bench.command("run", sweep, "--out", out), cwd=ROOT, env=bench.env, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == os.fsencode(out) + b"\n", "scripts get the very bytes"
    assert b"\x1b" not in done.stderr and b"\xff" not in done.stderr
    assert whole(out) and read_run(out)["invocations"]
    assert "\\xff" in (out / "rows.csv").read_text("utf-8")
    drawn = bench.plots(out)
    assert drawn.returncode == 0 and "\x1b" not in drawn.stdout + drawn.stderr, drawn.stderr
    for name in ("report.md", "report.html", "run.json", "tables.md"):
        assert "\x1b" not in (out / name).read_text("utf-8")
    again = subprocess.run(bench.command("run", sweep, "--out", out), cwd=ROOT, env=bench.env, capture_output=True)
    assert again.returncode == 0 and b"all 2 cases are measured" in again.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("list", CLEAR), ("run", CLEAR), ("list", "smoke", "--where", f"layer={CLEAR}"), (CLEAR,),
        ("list", "smoke", "--gpu", CLEAR), ("run", f"--{CLEAR}"), ("run", "--repeat", CLEAR), ("run", "--retry", CLEAR),
        ("compare", CLEAR, CLEAR), ("spread", CLEAR, "b"), ("train", "--strategy", CLEAR, "--model", "m", "--out", "o"),
        ("evaluate", CLEAR), ("campaign", "--stages", CLEAR), ("precompile", CLEAR),
        ("run", "smoke", "--wait-quiet", CLEAR), ("merge", CLEAR), ("status", CLEAR),
        ("compare", str(REFERENCE), str(REFERENCE), "--json", f"/nowhere/{CLEAR}"),
        ("run", "a\nerror: b\u202egnp"),
    ],
)  # fmt: skip
def test_no_argument_steers_the_terminal(cli: Cli, arguments: tuple[str, ...]) -> None:
    done = cli(*arguments)
    assert done.returncode == 2
    said = done.stdout + done.stderr
    assert said.count("\n") == 1 and said[:-1].isprintable()


def test_no_file_steers_the_terminal(cli: Cli, tmp_path: Path) -> None:
    """Keys and values of a sweep, in messages and in a table that shows them."""
    for text in (
        'description: x\naxes: {}\nmethods: []\n"\\e[2J\\e]0;owned\\a": 1\n',
        'description: x\naxes: {level: "\\e[2J"}\nmethods: [{method: full}]\n',
        'description: x\naxes: {"\\u202e": 1}\nmethods: [{method: full}]\n',
        "description: \x1b\n",
    ):
        (tmp_path / "s.yaml").write_text(text)
        done = cli("list", tmp_path / "s.yaml")
        assert done.returncode == 2 and done.stderr[:-1].isprintable() and done.stderr.startswith("error: ")
    config = tmp_path / "\x1b[31mmodel[bold]x"
    config.mkdir()
    fields = {"model_type": "gpt2", "n_layer": 2, "n_head": 2, "n_embd": 16, "vocab_size": 32, "n_positions": 32}
    (config / "config.json").write_text(json.dumps(fields))
    named = str(config).replace("\x1b", "\\e")
    (tmp_path / "s.yaml").write_text(
        f'description: x\naxes: {{level: model, model: "{named}", batch: 1, seq: 4}}\nmethods: [{{method: full}}]\n'
    )
    done = cli("list", tmp_path / "s.yaml")
    assert done.returncode == 0 and "\x1b" not in done.stdout and "\\x1b[31mmodel[bold]x" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "--out", ""), ("run", ""), ("compare", "", "b"), ("compare", "a", "b", "--json", ""),
        ("spread", "", "a"), ("campaign", "--save", ""), ("campaign", "--out", ""), ("evaluate", "m", "--out", ""),
        ("evaluate", ""), ("train", "--strategy", "paca", "--model", "m", "--out", ""), ("list", ""),
        ("precompile", ""), ("merge", ""), ("status", ""), ("merge", "a", "--out", ""),
    ],
)  # fmt: skip
def test_an_empty_path_is_not_the_current_folder(cli: Cli, arguments: tuple[str, ...]) -> None:
    done = cli(*arguments)
    assert (done.returncode, done.stdout) == (2, "") and "it is empty, and names nothing" in done.stderr


def test_plots_takes_no_empty_path_and_escapes_what_argparse_says(capsys: pytest.CaptureFixture[str]) -> None:
    from plots.__main__ import main

    for arguments in ([""], ["--out", "", "x"], ["x", f"--{CLEAR}"], [CLEAR]):
        try:
            status: Any = main(arguments)
        except SystemExit as e:
            status = e.code
        said = capsys.readouterr().err
        assert status == 2 and "\x1b" not in said and "\x07" not in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "--threads", "99999999"), "Input should be less than or equal to 4096. Found: '99999999'."),
        (("run", "--repeat=x"), "Found: 'x'."), (("list", "--gpu"), "Option '--gpu' requires an argument."),
        (("run", "smoke", "extra"), "Got unexpected extra argument(s) (extra)."),
        (("nope",), "No such command 'nope'. ("), (("lst",), "Did you mean 'list'? ("),
        (("run", "--nope"), "No such option: --nope"), (("train",), "Missing option '--strategy'."),
    ],
)  # fmt: skip
def test_a_wrong_use_is_one_line(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], said: str
) -> None:
    monkeypatch.setattr("sys.argv", ["bench", *arguments])
    done = cli(*arguments)
    assert (done.returncode, done.stdout) == (2, "") and done.stderr.count("\n") == 1
    assert said in done.stderr and done.stderr.startswith("error: ") and "--help)" in done.stderr
