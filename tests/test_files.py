"""Files that survive: lines and whole files on a full disk, and what moves aside."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.files import append_json_lines, replace_file, set_aside
from tests.conftest import ROOT

LINES = [{"a": 1}, {"a": 2}, {"a": [3.5, None]}]


def test_no_number_that_json_lacks_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        append_json_lines(tmp_path / "x.jsonl", [{"a": float("nan")}])
    assert not (tmp_path / "x.jsonl").exists()


FULL = """
import resource, signal, sys
from pathlib import Path
from bench.files import append_json_lines, replace_file
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
folder = Path(sys.argv[1])
for write in (lambda: append_json_lines(folder / "x.jsonl", [{"a": "x" * 2000}]),
              lambda: replace_file(folder / "y", "x" * 2000)):
    try:
        write()
    except OSError as e:
        print(e.strerror)
"""


def test_a_full_disk_leaves_the_files_as_they_were(tmp_path: Path) -> None:
    """Full by RLIMIT_FSIZE: the write itself fails, half way."""
    append_json_lines(tmp_path / "x.jsonl", LINES)
    replace_file(tmp_path / "y", "old")
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    done = subprocess.run([sys.executable, "-c", FULL, tmp_path], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["File too large"] * 2, done.stderr
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    for content in ("Ünï", b"\x00\xff"):
        replace_file(tmp_path / "x", content)
        assert (tmp_path / "x").read_bytes() == (content if isinstance(content, bytes) else content.encode())
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_what_is_set_aside_never_overwrites_what_was(tmp_path: Path) -> None:
    def write(*names: str) -> list[Path]:
        for name in names:
            (tmp_path / name).write_text(json.dumps(name))
        return [tmp_path / name for name in names]

    first = set_aside(tmp_path, "run", write("a", "b"))
    assert first == tmp_path / "earlier" / "run" and {p.name for p in first.iterdir()} == {"a", "b"}
    completed = set_aside(tmp_path, "run", write("c"))
    assert completed == first, "a move that was cut off is completed"
    (tmp_path / "b").write_text("another")
    second = set_aside(tmp_path, "run", [tmp_path / "b"])
    assert second.name == "run-2" and (second / "b").read_text() == "another" and (first / "b").read_text() == '"b"'
    assert {p.name for p in tmp_path.iterdir()} == {"earlier"}
