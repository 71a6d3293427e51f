"""A method from a folder of its own goes through check, run, rows and table; half a method is refused at the start."""

import csv
import os
from pathlib import Path

import pytest

from bench import methods
from bench.errors import UserError
from bench.methods.registry import load
from bench.methods.registry import methods as methods_there_are
from bench.record.environment import source_hash
from plots.data.load import load as load_results
from plots.report import draw
from tests.conftest import Bench, Cli, rows_of

TOY = Path(__file__).with_name("toy")

SWEEP = """
description: a method from outside
axes: {{level: {level}, {what}, batch: 1, seq: 16, precision: fp32}}
methods:
  - {{method: full}}
  - {{method: toy, rank: 4, alpha: 8}}
measure: {{min_samples: 8, budget_s: 0.05, wall_s: 1, warmup_s: 0.01, warmup_calls: 1}}
"""


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Toy beside full fine-tuning, on one layer and on one block."""
    from tests.models.tiny import LLAMA, write_config

    for level, what in (("linear", "layer: square-32"), ("block", f"model: {write_config(tmp_path, LLAMA)}")):
        (tmp_path / f"{level}.yaml").write_text(SWEEP.format(level=level, what=what))
    return tmp_path


@pytest.mark.parametrize("level", ["linear", pytest.param("block", marks=pytest.mark.slow)])
def test_a_method_from_outside_is_checked_timed_and_drawn(bench: Bench, sweep: Path, level: str) -> None:
    bench.env["LORABENCH_METHODS"] = str(TOY)
    out = sweep / "out"
    done = bench("run", sweep / f"{level}.yaml", "--out", out)
    assert done.returncode == 0, done.stderr
    toy = [r for r in rows_of(out) if r["method"] == "toy"]
    assert {(r["status"], r["pass"]) for r in toy} == {("ok", p) for p in ("forward", "backward", "forward-backward")}
    # Of a square layer of 32: B is (32, 4). Counted by hand: 2 M N K, and 2 M r (N + K) for the branch.
    if level == "linear":
        forward = next(r for r in toy if r["pass"] == "forward")
        assert (forward["trainable_params"], forward["flops"]) == (4 * 32, 2 * 16 * 32 * 32 + 2 * 16 * 4 * 64)
    assert bench.plots(out).returncode == 0
    assert "Toy eager" in (out / "tables.md").read_text()
    with open(out / "summary.csv", newline="") as f:
        ratios = [r["ratio_to_full"] for r in csv.DictReader(f) if r["method"] == "toy"]
    assert ratios and all(ratios)
    # Its reader, as this process, may not have the method's folder: the word itself is the label then.
    draw(load_results(out), figures=("throughput", "ratio"))
    assert "toy eager" in (out / "tables.md").read_text()


def _copied(folder: Path, *changes: tuple[str, str, str]) -> Path:
    """Toy with parts of its files replaced: (file, old, new)."""
    folder.mkdir()
    for file in TOY.glob("*.py"):
        text = file.read_text()
        for name, old, new in changes:
            if name == file.name:
                assert old in text
                text = text.replace(old, new)
        if text:
            (folder / file.name).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ([("method.py", "    def forward_flops", "    def flops_of_forward")], "forward_flops"),
        ([("method.py", "METHOD = Toy()", "")], "no METHOD in it"),
        ([("method.py", "METHOD = Toy()", "METHOD = Toy")], "METHOD is"),
        ([("method.py", '    label = "Toy"', "")], "METHOD has no 'label'"),
        ([("method.py", '"eager": Impl', '"other": Impl')], "no 'eager'"),
        ([("method.py", 'Impl("LoRA with A frozen")', 'Impl("x", module="bench.methods.half.gone")')], "not there"),
        ([("eager.py", "def apply", "def applied")], "has no 'apply'"),
        ([("reference.py", "class Reference(", "class Referee(")], "has no 'Reference'"),
        ([("method.py", "METHOD = Toy()", "import os; os.nosuch")], "AttributeError"),
        ([("method.py", "METHOD = Toy()", "raise SystemExit(3)")], "SystemExit"),
        ([("method.py", 'Impl("LoRA with A frozen")', '"eager"')], "is of type str"),
    ],
)
def test_half_a_method_is_refused_with_what_is_missing(
    changes: list[tuple[str, str, str]], said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(methods, "__path__", [*methods.__path__])
    folder = _copied(tmp_path / f"half_{tmp_path.name}", *changes)  # a name that no other test has imported
    with pytest.raises(UserError) as refusal:
        load(folder)
    assert said in str(refusal.value) and "half" in str(refusal.value) and "\n" not in str(refusal.value)


def test_folders_that_are_no_methods_are_refused_at_the_start(bench: Bench, sweep_file: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    half = _copied(tmp_path / "half", ("method.py", "METHOD = Toy()", ""))
    lora = _copied(tmp_path / "lora")
    for folder, said in ((half, "no METHOD in it"), (lora, "there is a method 'lora' already")):
        done = bench("run", sweep_file, "--out", tmp_path / "out", env=bench.env | {"LORABENCH_METHODS": str(folder)})
        assert done.returncode == 2 and said in done.stderr, done.stderr
        assert "Traceback" not in done.stderr and not (tmp_path / "out").exists()
    with pytest.raises(UserError, match=r"no method\.py"):
        load(tmp_path / "empty")
    with pytest.raises(UserError, match="'half-a-method' is no name of a package"):
        load(_copied(tmp_path / "half-a-method"))


def test_a_folder_that_another_hides_is_refused(bench: Bench, sweep_file: Path, tmp_path: Path) -> None:
    for parent in ("a", "b"):
        (tmp_path / parent).mkdir()
    first, hidden = _copied(tmp_path / "a" / "toy"), _copied(tmp_path / "b" / "other")
    _copied(tmp_path / "a" / "other")
    bench.env["LORABENCH_METHODS"] = os.pathsep.join(map(str, (first, hidden)))
    done = bench("list", sweep_file)
    assert done.returncode == 2 and "has the same name and comes first" in done.stderr, done.stderr


def test_a_method_may_do_without_rank_and_borrow_its_apply(bench: Bench, sweep: Path, tmp_path: Path) -> None:
    """And has a hyphen where its folder has an underscore."""
    rankless = _copied(
        tmp_path / "rank_less",
        ("method.py", "    reads_x = False", '    reads_x = False\n    axes = ("targets", "adapter_dtype")'),
        ("eager.py", "def apply", "from bench.methods.full.eager import apply\n\n\ndef unused"),
    )
    path = sweep / "linear.yaml"
    path.write_text(path.read_text().replace("{method: toy, rank: 4, alpha: 8}", "{method: rank-less}"))
    done = bench("list", path, env=bench.env | {"LORABENCH_METHODS": str(rankless)})
    assert done.returncode == 0 and " rank-less " in done.stdout, done.stderr


def test_an_unknown_method_is_refused_with_those_there_are(cli: Cli, sweep: Path) -> None:
    done = cli("list", sweep / "linear.yaml")
    assert done.returncode == 2 and "'toy'" in done.stderr and ", ".join(methods_there_are()) in done.stderr


def test_the_identity_of_a_record_holds_the_sources_of_methods_from_outside(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    copy = _copied(tmp_path / "toy")
    without = source_hash()
    monkeypatch.setenv("LORABENCH_METHODS", str(copy))
    first = source_hash()
    (copy / "eager.py").write_text((copy / "eager.py").read_text() + "# changed\n")
    assert len({without, first, source_hash()}) == 3
