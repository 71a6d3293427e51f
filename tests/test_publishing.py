"""make publish: a measured folder where git sees it."""

import gzip
import shutil
import subprocess
from pathlib import Path

import pytest

from bench.errors import UserError
from plots.data.load import load
from tests.conftest import ROOT
from tests.synthetic import row, write_run


def test_published_samples_are_packed_where_they_are_large(checkout: Path) -> None:
    """A folder of more than a MiB of samples is published with them packed, and drawn as it was."""
    run = checkout / "results" / "h100" / "table1"
    subprocess.run(["git", "init", "-q", "."], cwd=checkout, check=True)
    for _ in range(2):  # published again, the packed file is replaced
        subprocess.run(["make", "publish", "GPU=h100"], cwd=checkout, check=True, capture_output=True)
    published = checkout / "results" / "h100" / "reference" / "table1"
    listed = subprocess.run(["git", "ls-files"], cwd=checkout, capture_output=True, text=True).stdout.split()
    assert [Path(p).name for p in listed] == ["rows.jsonl", "run.json", "samples.jsonl.gz"]
    packed = gzip.decompress((published / "samples.jsonl.gz").read_bytes())
    assert packed == (run / "samples.jsonl").read_bytes()
    assert load(published).lines == load(run).lines != {}
    (published / "samples.jsonl.gz").write_bytes(packed[:100])
    with pytest.raises(UserError, match=r"samples\.jsonl\.gz"):
        load(published)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout's Makefile with one measured folder whose samples are over a MiB."""
    for name in ("Makefile", ".gitignore"):
        shutil.copy(ROOT / name, tmp_path)
    rows = [row("table1", n, n, 1.0) for n in range(60)]
    keys = ("case_id", "run_id", "repeat", "pass", "clock")
    samples = [{k: r[k] for k in keys} | {"samples_ms": [1.0 + n / 7e3 for n in range(1500)]} for r in rows]
    write_run(tmp_path / "results" / "h100" / "table1", rows, samples)
    return tmp_path
