"""python -m kernels.zoo from its command line: rows, files and exit statuses, for sound and for broken models."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

pytest.importorskip("transformers")
pytest.importorskip("peft")

from kernels.zoo import table
from kernels.zoo.row import Accelerate, Paca, Row

# One or more of each kind: decoders, MoE, recurrent, encoders, encoder-decoders, vision, sound, both text and images.
KINDS = [
    "llama", "gpt2", "gemma2", "qwen3", "phi3", "opt", "bloom", "mixtral", "qwen2_moe", "deepseek_v3",
    "mamba2", "rwkv", "qwen3_next", "recurrent_gemma", "bert", "roberta", "deberta-v2", "modernbert", "albert", "t5",
    "bart", "m2m_100", "vit", "convnext", "dinov2", "wav2vec2", "whisper", "clip", "llava", "qwen2_vl",
]  # fmt: skip
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT}:{Path(__file__).parent}", "OMP_NUM_THREADS": "1"}


def zoo(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kernels.zoo", *arguments],
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=550,
    )


def rows_of(path: Path) -> dict[str, dict[str, Any]]:
    return {row["arch"]: row for row in json.loads(path.read_text())}


@pytest.mark.slow
def test_sound_and_broken_models_side_by_side(tmp_path: Path) -> None:
    planted = [f"planted_models:{name}" for name in ("NotEqual", "Crashes", "Reads", "CannotRun", "Sound")]
    done = zoo("--model", "gpt2", "llama", *planted, "--json", "rows.json", "--markdown", "m.md", folder=tmp_path)
    assert done.returncode == 1, done.stderr
    rows = rows_of(tmp_path / "rows.json")
    assert [rows[name]["status"] for name in ("gpt2", "llama", planted[4])] == ["served"] * 3
    assert rows["llama"]["accelerate"]["fused"] == rows["llama"]["accelerate"]["adapted"] == 2 * 7
    assert rows["llama"]["paca"]["layers"] == rows["llama"]["paca"]["reached"] == 2 * 7
    assert rows["gpt2"]["model"] == "GPT2LMHeadModel" and rows["gpt2"]["inputs"] == ["input_ids"]
    not_equal, crashes, reads, cannot = (rows[name] for name in planted[:4])
    assert not_equal["status"] == "wrong" and not_equal["accelerate"]["equal"] is False and not_equal["paca"]["works"]
    assert "output differs" in not_equal["accelerate"]["reason"]
    assert crashes["status"] == "wrong" and "signal 6 while paca was tried" in crashes["reason"]
    assert reads["paca"]["works"] is not True
    assert cannot["status"] == "not built" and "its own fault" in cannot["reason"]
    for text in (done.stdout, (tmp_path / "m.md").read_text()):
        assert (
            "14 of 14, equal" in text and "14 of 14, works" in text and "NOT EQUAL" in text and "its own fault" in text
        )
        assert "6 of 7 architectures were tried" in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.md", "rows.json"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--jobs", "0"], "--jobs is 0, expected at least 1"),
        (["--json", "nowhere/rows.json"], "there is no folder"),
        pytest.param(["--model", "lama"], "Did you mean llama", marks=pytest.mark.slow),
        pytest.param(["--model", "no_module:Class"], "names no class of a model", marks=pytest.mark.slow),
        pytest.param(
            ["--model", "planted_models:Block"], "expected a subclass of PreTrainedModel", marks=pytest.mark.slow
        ),
    ],
)
def test_a_bad_request_is_refused(arguments: list[str], said: str, tmp_path: Path) -> None:
    done = zoo(*arguments, folder=tmp_path)
    assert done.returncode == 2
    assert said in " ".join(done.stderr.split())


def test_names_are_looked_up_among_transformers_own() -> None:
    from kernels.zoo import catalogue

    assert catalogue.unknown("gpt2") is None and catalogue.unknown("qwen3_next") is None
    assert "Did you mean llama" in str(catalogue.unknown("lama"))
    known = catalogue.names()
    assert len(known) > 300 and set(KINDS) <= set(known)
    assert "clip_vision_model" not in known, "a part of clip is tried with clip"


def test_what_the_status_of_a_row_is() -> None:
    good, fine = Accelerate(4, 4, 4, True), Paca(4, 4, True)
    refused = Accelerate(0, 2, 2, True, {"DoRA": 2})
    assert Row("a", accelerate=good, paca=fine).status == "served"
    assert Row("a", accelerate=refused, paca=fine).status == "refused"
    assert Row("a", accelerate=good, paca=Paca(reason="no blocks")).status == "refused"
    assert Row("a", accelerate=Accelerate(4, 4, 4, False), paca=fine).status == "wrong"
    assert Row("a", accelerate=good, paca=Paca(4, 0, False)).status == "wrong"
    assert Row("a", reason="it crashed", died=True).status == "wrong"
    assert Row("a", reason="needs timm").status == "not built"
    assert table.cells(Row("a", accelerate=refused, paca=fine)) == (
        "a",
        "0 of 2, equal",
        "4 of 4, works",
        "2 left to PEFT: DoRA",
    )


@pytest.mark.slow
def test_a_model_that_hangs_is_a_row_when_its_time_is_over(tmp_path: Path) -> None:
    code = """
from kernels.zoo.processes import examine_all
examine_all(["planted_models:Hangs", "planted_models:Sound"], 1, lambda row: print(row.status, row.reason), limit=20)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=300
    )
    assert done.stdout.splitlines() == ["wrong it took more than 20 s while accelerate was tried", "served "], (
        done.stderr
    )


@pytest.mark.slow
def test_control_c_leaves_what_was_done(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    command = [sys.executable, "-m", "kernels.zoo", "--json", str(path), "--jobs", "1"]
    command += ["--model", "gpt2", "planted_models:Hangs"]
    running = subprocess.Popen(
        command, cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    while running.poll() is None and not path.exists():
        time.sleep(0.2)
    os.killpg(running.pid, signal.SIGINT)
    said, _ = running.communicate(timeout=60)
    assert running.returncode == 130
    assert list(rows_of(path)) == ["gpt2"] and "8 of 8, equal" in said


@pytest.mark.slow
def test_a_model_of_every_kind_is_served_or_refused_with_a_reason(tmp_path: Path) -> None:
    done = zoo("--model", *KINDS, "--json", "rows.json", folder=tmp_path)
    rows = rows_of(tmp_path / "rows.json")
    assert len(rows) == len(KINDS) == 30
    bad = {name: row for name, row in rows.items() if row["status"] in ("wrong", "not built")}
    assert not bad and done.returncode == 0, done.stdout
    fused = [row["accelerate"] for row in rows.values() if row["accelerate"]["fused"]]
    assert len(fused) >= 28 and all(found["equal"] for found in fused)
    assert sum(row["paca"]["works"] is True for row in rows.values()) >= 26
