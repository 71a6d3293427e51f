"""The stages of a campaign: what they run on which device, tests that fail, and the archive of --save."""

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

import bench.commands.campaign as campaign_module
from bench.cli import main
from bench.commands.campaign.archive import packed
from bench.commands.campaign.stages import CLOCK_TESTS, PARTS, STAGES, Stage, make_stages
from bench.devices import Device
from bench.errors import UserError
from bench.sweeps.expand import make_plan
from tests.conftest import ROOT

H100 = Device("h100", "NVIDIA H100 80GB HBM3", 0, "GPU-1", "580.1", 132, 81559)
CPU = Device("cpu", "a CPU")


def test_the_stages_are_those_of_the_device(tmp_path: Path) -> None:
    on_gpu = {s.name: s for s in make_stages((), H100, tmp_path)}
    assert (*on_gpu, "report") == STAGES and not any(s.skip for s in on_gpu.values())
    run = ("-m", "bench", "run", "table1", "--gpu", "h100", "--out")
    assert [c[1:] for c in on_gpu["table1"].commands] == [(*run, str(tmp_path / "table1"))]
    tuned = on_gpu["table1-tuned"]
    assert tuned.commands[0][1:] == (*run, str(tmp_path / "table1-tuned"), "--where", "impl=triton")
    assert tuned.environment == on_gpu["tune"].environment == {"LORABENCH_TUNED": str(tmp_path / "tuned")}
    assert on_gpu["table1"].environment == {}, "beside them the untuned ones"
    assert on_gpu["tune"].commands[0][2:5] == ("kernels.tune", "--write", "--record")
    first, then = on_gpu["gpu-tests"].commands
    assert any("test_on_gpu.py" in word for word in first) and "-n" in first, "kernels first, in parallel"
    assert then[-1].endswith("test_clocks_on_gpu.py") and "-n" not in then
    sweeps = ("table1", "table1-tuned", "table2", "peers", "lengths")
    assert on_gpu["precompile"].commands[0][-6:] == ("--as-campaign", *sweeps)
    on_cpu = {s.name for s in make_stages((), CPU, tmp_path) if s.skip == "it needs an NVIDIA GPU"}
    assert on_cpu == {"gpu-tests", "precompile", "tune", "table1-tuned"}
    assert not any("--where" in c for s in make_stages((), CPU, tmp_path) for c in s.commands)
    with pytest.raises(UserError, match=r"--stages: no stage 'tabel1'\. Did you mean 'table1'\? Stages: gpu-tests, "):
        make_stages(("tabel1",), CPU, tmp_path)


def test_what_a_campaign_measures_of_each_sweep() -> None:
    """Whole columns early: the short length of all models first; nothing twice, and nothing that compiles."""
    plans = {n: make_plan(p.sweep, on_cpu=False, where=p.where) for n, p in PARTS.items()}
    sizes = list(dict.fromkeys((c.seq, c.model) for c in plans["table1"].cases))
    models = ("gpt2-medium", "gpt2-xl", "tinyllama")
    assert sizes == [(seq, model) for seq in (512, 1024) for model in models]
    there = {(c.seq, c.model) for c in plans["table1"].cases}
    assert not there & {(c.seq, c.model) for c in plans["lengths"].cases}
    impls = {c.impl for plan in plans.values() for c in plan.cases}
    assert not {i for i in impls if "compile" in i} and {"eager", "peft-fp32", "triton", "official"} <= impls
    assert {c.trainable_layers for c in plans["table2"].cases} == {"all", "upper-1/2"}
    assert {c.method for c in plans["table2"].cases} == {"lora", "paca"}
    subjects = {c.subject for c in plans["peers"].cases}
    assert {"square-4096", "gpt2-xl attn.c_attn", "llama2-7b mlp.down_proj"} < subjects and len(subjects) == 7


def test_the_clock_tests_of_a_campaign_are_there() -> None:
    clocks = ROOT / "tests" / "timing" / "test_clocks_on_gpu.py"
    command = [sys.executable, "-m", "pytest", "-q", "--collect-only", "-m", "gpu", "-k", CLOCK_TESTS, str(clocks)]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout
    names = {line.partition("::")[2].partition("[")[0] for line in found.splitlines() if "::" in line}
    assert len(names) == 4, found
    assert 4 < found.count("::") < 12, "a few"


FAILING = """
import os, signal, time, pytest
def test_right(): pass
def test_wrong(): raise ValueError("no")
def test_long():
    if os.environ.get("ENDED"):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
"""


@pytest.mark.parametrize(("ended", "code"), [("", 1), ("1", 2)])
def test_a_failed_test_is_named_even_where_pytest_is_ended(tmp_path: Path, ended: str, code: int) -> None:
    (tmp_path / "test_some.py").write_text(FAILING)
    told = tmp_path / "told"
    env = os.environ | {"LORABENCH_FAILURES": str(told), "PYTHONPATH": str(ROOT), "ENDED": ended}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.failures_at_once", "-p", "no:cacheprovider"]
    done = subprocess.run([*command, "test_some.py"], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == code, done.stdout + done.stderr
    assert told.read_text() == "test_some.py::test_wrong\n" and "FAILED test_some.py::test_wrong" in done.stderr
    assert "short test summary info" in done.stdout


def test_failed_gpu_tests_stop_a_campaign_and_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A board with a stage of tests that fail: nothing is measured, and the last line goes on without them."""
    out = tmp_path / "out"
    monkeypatch.setattr(sys, "argv", ["bench", "campaign", "--fresh", "--out", str(out), "--time", "9m"])
    told = out / "gpu-tests.txt"
    code = f"open({str(told)!r}, 'w').write('t.py::test_a[1]\\nt.py::test_b\\n'); raise SystemExit(1)"
    tests = Stage("gpu-tests", ((sys.executable, "-c", code), ("never",)), failures=told)
    monkeypatch.setattr(campaign_module, "make_stages", lambda *_: [tests, *make_stages(("smoke",), CPU, out)])
    with pytest.raises(SystemExit) as end:
        main(["campaign", "--gpu", "cpu", "--out", str(out)])
    assert end.value.code == 1 and not (out / "smoke").exists()
    stages = json.loads((out / "campaign.json").read_text())["stages"]
    assert stages["gpu-tests"]["detail"] == "exit status 1; 2 failed: t.py::test_a[1], t.py::test_b"
    last = capfd.readouterr().err.splitlines()[-1]
    assert last == f"To go on without: python -m bench campaign --out {out} --time 9m --stages smoke,report"


def test_an_archive_thins_samples_and_stays_below_its_limit(tmp_path: Path) -> None:
    folder = tmp_path / "h100"
    (folder / "table1" / "logs").mkdir(parents=True)
    line = {"case_id": "a", "samples_ms": list(range(1000)), "rounds": [i // 4 for i in range(1000)], "ratios": [1.0]}
    torn = json.dumps(line)[:99]
    samples = json.dumps(line) + "\n" + json.dumps(line | {"samples_ms": [1.0], "rounds": [0]}) + "\n" + torn
    (folder / "table1" / "samples.jsonl").write_text(samples)
    (folder / "table1" / "rows.jsonl").write_text("{}\n")
    for name, size in (("small.log", 30_000), ("large.log", 60_000)):
        (folder / "table1" / "logs" / name).write_bytes(os.urandom(size))

    def names(archive: bytes) -> dict[str, bytes]:
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            return {m.name: (tar.extractfile(m) or io.BytesIO()).read() for m in tar.getmembers()}

    archive, left_out = packed(folder)
    assert left_out == [] and len(names(archive)) == 4
    first, second, rest = names(archive)["h100/table1/samples.jsonl"].splitlines()
    kept = json.loads(first)
    assert len(kept["samples_ms"]) == 200 and kept["samples_ms"][:2] == [0, 5] and kept["samples_ms"][-1] == 995
    assert kept["rounds"] == [i // 4 for i in kept["samples_ms"]] and json.loads(second)["samples_ms"] == [1.0]
    assert rest.decode() == torn and (folder / "table1" / "samples.jsonl").read_text() == samples
    archive, left_out = packed(folder, 50_000)
    assert left_out == ["table1/logs/large.log"] and len(archive) <= 50_000
    archive, left_out = packed(folder, 1000)
    assert left_out[:2] == ["table1/logs/large.log", "table1/logs/small.log"] and "h100/table1/rows.jsonl" in names(
        archive
    )
