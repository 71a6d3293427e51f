"""What ends a command ends it in one line and with 128 + its number, at whatever moment it comes."""

import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT, Bench, rows_of, wait_for

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def heeds(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal."""
    caught = next(x for x in Path(f"/proc/{pid}/status").read_text().splitlines() if x.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


@pytest.mark.slow
@pytest.mark.parametrize("number", ENDING)
@pytest.mark.parametrize("module", ["bench", "plots"])
def test_from_the_first_import_to_the_last_line(bench: Bench, tmp_path: Path, module: str, number: int) -> None:
    """Sent after growing pauses, until the command is done before it comes."""
    folder = ROOT / "results" / "cpu" / "reference" / "table1"
    arguments = ("list", "table1") if module == "bench" else (folder,)
    if module == "plots":
        copy = tmp_path / "table1"
        subprocess.run(["cp", "-r", folder, copy], check=True)
        arguments = (copy,)
    ended, pause = [], 0.01
    while len(ended) < 40:
        command = [bench.command()[0], "-m", module, *map(str, arguments)]
        process = subprocess.Popen(
            command, cwd=ROOT, env=bench.env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        wait_for(lambda pid=process.pid: heeds(pid, signal.SIGTERM))  # before that, Python itself is starting
        time.sleep(pause)
        process.send_signal(number)
        said = process.communicate(timeout=60)[1]
        ended.append(process.returncode)
        assert process.returncode in (0, 128 + number), said
        assert "Traceback" not in said and "Aborted" not in said
        if process.returncode > 0:
            assert said.splitlines()[-1] == f"interrupted by {signal.Signals(number).name}"
        elif pause > 0.3:
            break
        pause *= 1.7 if module == "bench" else 3
    assert ended[0] == 128 + number and len(ended) > 3


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGQUIT])
def test_a_closed_terminal_keeps_what_is_finished_and_says_how_to_go_on(
    bench: Bench, sweep_file: Path, tmp_path: Path, number: int
) -> None:
    out = tmp_path / "r"
    process = bench.start("run", sweep_file, "--out", out)
    wait_for(lambda: rows_of(out))
    for _ in range(3):  # a second and a third one do not stop it from putting its files in order
        process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number, said
    assert "To go on:" in said and "Traceback" not in said
    assert (out / "rows.csv").is_file()
    assert bench("run", sweep_file, "--out", out).returncode == 0
    keys = [(r["case_id"], r["pass"], r["clock"]) for r in rows_of(out)]
    assert len(keys) == len(set(keys)) == 36


@pytest.mark.slow
def test_where_the_last_file_cannot_be_written_the_end_stays_what_it_is(
    bench: Bench, sweep_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "r"
    draft = out / "rows.csv.new"
    draft.mkdir(parents=True)
    process = bench.start("run", sweep_file, "--out", out)
    wait_for(lambda: rows_of(out))
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, said
    assert f"error: {draft}: Is a directory" in said and "To go on:" in said
    done = bench("run", sweep_file, "--out", out)
    assert done.returncode == 1 and len(rows_of(out)) == 36
    assert f"error: {draft}: Is a directory; what was written before is whole" in done.stderr
    draft.rmdir()
    assert bench("run", sweep_file, "--out", out).returncode == 0 and (out / "rows.csv").is_file()


@pytest.mark.slow
def test_under_nohup_a_closed_terminal_ends_nothing(bench: Bench, sweep_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "r"
    process = subprocess.Popen(
        ["nohup", *bench.command("run", sweep_file, "--out", out)], cwd=ROOT, env=bench.env,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    wait_for(lambda: rows_of(out))
    process.send_signal(signal.SIGHUP)
    assert process.wait(60) == 0 and len(rows_of(out)) == 36
