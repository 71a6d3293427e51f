"""compare --json FILE, whatever FILE is: a plain file is replaced, a link written through, a pipe or device written
into, anything else refused. Nothing that is no plain file is ever renamed over."""

import json
import os
import subprocess
import threading
from pathlib import Path

import pytest

from bench.files import append_json_lines, replace_file
from tests.conftest import ROOT, Bench, Cli

A = ROOT / "results" / "cpu" / "reference" / "table1"


def is_comparison(text: str) -> bool:
    return json.loads(text).keys() >= {"schema", "sides", "comparisons", "sentence"}


def test_a_plain_file_is_replaced_and_a_link_written_through(cli: Cli, tmp_path: Path) -> None:
    target, link, new = tmp_path / "target.json", tmp_path / "link.json", tmp_path / "new.json"
    target.write_text("old")
    link.symlink_to(target)
    for path in (link, new):
        assert cli("compare", A, A, "--json", path).returncode == 0
    assert link.is_symlink() and is_comparison(target.read_text()) and is_comparison(new.read_text())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link.json", "new.json", "target.json"]


def test_a_pipe_is_written_into(cli: Cli, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    done = cli("compare", A, A, "--json", pipe)
    reader.join(30)
    assert done.returncode == 0 and pipe.is_fifo() and is_comparison(read[0])


def test_a_pipe_that_nobody_reads_is_refused_at_once(cli: Cli, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    done = cli("compare", A, A, "--json", tmp_path / "pipe")
    assert done.returncode == 2 and "nobody reads this pipe" in done.stderr and (tmp_path / "pipe").is_fifo()


def test_devices_stay_what_they_are(bench: Bench, cli: Cli) -> None:
    before = Path("/dev/null").stat().st_rdev
    assert cli("compare", A, A, "--json", "/dev/null").returncode == 0
    assert Path("/dev/null").stat().st_rdev == before and Path("/dev/null").is_char_device()
    full = cli("compare", A, A, "--json", "/dev/full")
    assert full.returncode == 2 and "--json /dev/full: No space left on device" in full.stderr
    command = bench.command("compare", A, A, "--json", "/dev/stdout")
    piped = subprocess.run(command, cwd=ROOT, env=bench.env, capture_output=True, text=True)
    assert piped.returncode == 0 and is_comparison(piped.stdout[piped.stdout.index("{") : piped.stdout.rindex("}") + 1])


@pytest.mark.parametrize(("name", "said"), [("folder", "this is a folder"), ("missing/x.json", "no such folder")])
def test_what_cannot_be_written_is_said_before_anything_is_compared(
    cli: Cli, tmp_path: Path, name: str, said: str
) -> None:
    (tmp_path / "folder").mkdir()
    done = cli("compare", "nowhere-a", "nowhere-b", "--json", tmp_path / name)
    assert done.returncode == 2 and said in done.stderr and "--json" in done.stderr


def test_a_draft_follows_no_link_that_somebody_planted(tmp_path: Path) -> None:
    """In a shared folder the name of a draft can be guessed."""
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "out.json.new").symlink_to(victim)
    replace_file(tmp_path / "out.json", "new")
    assert victim.read_text() == "mine" and (tmp_path / "out.json").read_text() == "new"
    assert not os.path.lexists(tmp_path / "out.json.new")


def test_lines_are_appended_to_plain_files_alone(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "link.jsonl").symlink_to(victim)
    os.mkfifo(tmp_path / "pipe.jsonl")
    for name in ("link.jsonl", "pipe.jsonl"):
        with pytest.raises(OSError, match="no plain file"):
            append_json_lines(tmp_path / name, [{"a": 1}])
    assert victim.read_text() == "mine"
