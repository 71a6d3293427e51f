"""Tuned files: what is written is read again, anything else is one sentence; their hash; no torch for it."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings

from kernels.runtime.files import write_atomically
from kernels.runtime.tuned import Measured, Tuned, read_tuned, tuned_hash, tuned_path, write_tuned
from tests.mutations import damaged_json

NAME = "NVIDIA H100 80GB HBM3"
ENTRY = Measured("forward", 4096, 2048, 1024, 16, False, "epilogue", (128, 256, 64, 3, 8), "us: epilogue 1.0")
PLAIN = Measured("backward", 4096, 2048, 1024, 16, True, "cublas", None, "us: cublas 1.0", conv1d=True, bias=True)
TUNED = Tuned(NAME, 90, "3.7.1", "2.13.0", "2026-01-31", (ENTRY, PLAIN))


def test_written_and_read_again(tmp_path: Path) -> None:
    path = tuned_path(NAME, tmp_path / "new")
    assert path.name == "h100-80gb-hbm3.json" and tuned_hash(path) == ""
    write_tuned(path, TUNED)
    assert read_tuned(path) == TUNED
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    first = tuned_hash(path)
    assert len(first) == 16 and int(first, 16) >= 0
    write_tuned(path, Tuned(NAME, 90, "3.7.1", "2.13.0", "2026-01-31", (PLAIN,)))
    assert tuned_hash(path) != first


def test_the_folder_is_the_environments_or_the_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORABENCH_TUNED", str(tmp_path))
    write_tuned(tuned_path(NAME), TUNED)
    assert tuned_hash(NAME) == tuned_hash(tmp_path / "h100-80gb-hbm3.json") != ""
    monkeypatch.delenv("LORABENCH_TUNED")
    assert tuned_path("NVIDIA GeForce RTX 4090").parts[-3:] == ("kernels", "tuned", "geforce-rtx-4090.json")


WRONG = {
    "no JSON": (lambda _: "{torn", "it is no JSON"),
    "a list": (lambda _: "[]", "the file is a list, expected an object"),
    "a missing key": (lambda d: d.pop("arch"), "the file has no key 'arch'"),
    "an unknown key": (lambda d: d.update(more=1), "the file has an unknown key 'more'"),
    "entries of another kind": (lambda d: d.update(entries={}), "entries is {}, expected a value of type list"),
    "an entry of another kind": (lambda d: d["entries"].append(3), r"entries\[2\] is a int, expected an object"),
    "an entry of a version before layouts": (
        lambda d: [d["entries"][1].pop(key) for key in ("conv1d", "bias")] and None,
        r"entries\[1\] has no key 'bias'. Delete the file and tune again",
    ),
    "a layout as a number": (lambda d: d["entries"][0].update(conv1d=1), "conv1d is 1, expected a value of type bool"),
    "an unknown scheme": (
        lambda d: d["entries"][0].update(scheme="f9"), r"entries\[0\]: scheme is 'f9', expected one of cublas",
    ),
    "a scheme of the other pass": (lambda d: d["entries"][1].update(scheme="single_pass"), "scheme is 'single_pass'"),
    "a scheme that is a list": (lambda d: d["entries"][0].update(scheme=["epilogue"]), "expected a value of type str"),
    "an unknown pass": (lambda d: d["entries"][0].update(passed="up"), "passed is 'up', expected one of forward"),
    "a width as text": (lambda d: d["entries"][0].update(n="2048"), "n is '2048', expected a value of type int"),
    "a width of 0": (lambda d: d["entries"][0].update(n=0), "n is 0, expected at least 1"),
    "a truth value as a number": (lambda d: d["entries"][0].update(rank=True), "rank is True, expected a value"),
    "no tile": (lambda d: d["entries"][0].update(tile=None), r"tile is None, expected \[BM"),
    "a tile of cuBLAS": (lambda d: d["entries"][1].update(tile=[16] * 5), "expected null for scheme cublas"),
    "an odd tile": (lambda d: d["entries"][0].update(tile=[100, 128, 64, 3, 8]), "expected sides of 16 to 512"),
    "too many stages": (lambda d: d["entries"][0].update(tile=[128, 128, 64, 99, 8]), "1 to 8 stages"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_was_never_written_is_one_sentence(name: str, tmp_path: Path) -> None:
    change, words = WRONG[name]
    found = json.loads(json.dumps(asdict(TUNED)))
    text = change(found)
    path = tmp_path / "h100.json"
    path.write_text(text if isinstance(text, str) else json.dumps(found))
    with pytest.raises(ValueError, match=words) as caught:
        read_tuned(path)
    message = str(caught.value)
    assert message.startswith(str(path)) and "\n" not in message and message.endswith("python -m kernels.tune --write")


@pytest.mark.slow
@settings(max_examples=2000, deadline=None, database=None)
@given(damaged_json(asdict(TUNED)))
def test_any_damage_is_one_sentence(data: bytes) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "h100.json"
        path.write_bytes(data)
        try:
            assert isinstance(read_tuned(path), Tuned)
        except ValueError as refused:
            assert str(refused).startswith(str(path)) and "\n" not in str(refused)


def test_the_hash_needs_no_torch() -> None:
    code = (
        "import sys; from kernels.runtime.tuned import tuned_hash; tuned_hash('cpu'); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def write(unfinished: Path) -> None:
        unfinished.write_text("half")
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        write_atomically(path, write)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
