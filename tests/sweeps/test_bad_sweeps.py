"""Sweep files that are wrong, odd or random: one sentence each, and the shell's exit status."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.cli import main
from bench.errors import UserError
from bench.sweeps.expand import make_plan
from bench.yamlfile import load_yaml
from tests.conftest import ROOT, SWEEP, Bench, Cli
from tests.sweeps.test_expansion import write


def test_yaml_traps_in_a_sweep_are_read_as_meant(tmp_path: Path) -> None:
    path = write(tmp_path, "alpha: 8}", "alpha: 32e-1, dropout: 1e-1}")
    lora = next(c for c in make_plan(path, on_cpu=True).cases if c.method == "lora")
    assert (lora.alpha, lora.dropout) == (3.2, 0.1)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("batch: 1", "bacth: 1", ["mine.yaml:3", "bacth", "unknown key", "batch"]),
        ("level: linear", "level: layer", ["mine.yaml:3", "level", "'layer'", "linear, block, model"]),
        ("method: full", "method: fool", ["mine.yaml:5", "'fool'", "full, ", "lora, ", "paca"]),
        ("{method: full}", "{method: full, impl: cuda}", ["mine.yaml:5", "'cuda'", "eager"]),
        ("rank: 4, alpha: 8}", "rank: 4}", ["mine.yaml:6", "lora", "'alpha'"]),
        ("rank: 4", "rank: '4'", ["mine.yaml:6", "rank", "'4'", "integer"]),
        ("rank: 4", "rank: 0", ["mine.yaml:6", "rank", "greater than 0"]),
        ("rank: 4", "rank: no", ["mine.yaml:6", "rank", "'no'"]),
        ("rank: 4", "rank: true", ["mine.yaml:6", "rank", "True"]),
        ("alpha: 8}", "alpha: 8, dropout: 1.0}", ["mine.yaml:6", "dropout", "less than 1"]),
        ("{method: paca, rank: 4", "{method: paca, rank: 64", ["mine.yaml:7", "rank", "64", "48"]),
        ("batch: 1,", "", ["mine.yaml:5", "'batch'"]),
        ("square-48", "round-48", ["mine.yaml", "model"]),
        ("seq: 16", "seq: []", ["mine.yaml:3", "seq"]),
        ("precision: fp32", "precision: fp8", ["mine.yaml:3", "precision", "bf16, fp16, fp32"]),
        ("precision: fp32", "precision: fp32, trainable_layers: upper", ["trainable_layers", "upper-1/2"]),
        ("precision: fp32", "precision: fp32, trainable_layers: upper-1/0", ["trainable_layers", "upper-1/2"]),
        ("level: linear, layer: [square-48, square-64]", "level: model, model: gpt2-xl, trainable_layers: every-1st",
         ["mine.yaml:3", "trainable_layers", "'every-1st': every-2nd is the first", "lisa-1 (lisa-G"]),
        ("level: linear, layer: [square-48, square-64]", "level: model, model: gpt2-xl, trainable_layers: lisa-999",
         ["mine.yaml:3", "trainable_layers", "'lisa-999': the model has 48 blocks", "every-2nd (every-Nth"]),
        ("layer: [square-48, square-64]", "model: tinylama", ["'tinylama'", "tinyllama", "config.json"]),
        ("layer: [square-48, square-64]", "model: tinyllama, layer: q", ["'q'", "self_attn.q_proj"]),
        ("level: linear, layer: [square-48, square-64]",
         "level: block, model: gpt2-xl, layer: all", ["block", "layer"]),
        ("level: linear, layer: [square-48, square-64], batch: 1, seq: 16",
         "level: block, model: gpt2-xl, batch: 1, seq: 4096", ["seq", "4096", "1024"]),
        ("level: linear, layer: [square-48, square-64], batch: 1, seq: 16",
         "level: block, model: gpt2-xl, batch: 1, seq: 16, targets: q_proj", ["targets", "'q_proj'", "attn.c_attn"]),
        ("min_samples: 8", "min_sample: 8", ["mine.yaml:8", "min_sample", "min_samples"]),
        ("min_samples: 8", "min_samples: many", ["mine.yaml:8", "min_samples", "many"]),
        ("budget_s: 0.05", "budget_s: .inf", ["mine.yaml:8: measure.budget_s: inf", "1000000"]),
        ("budget_s: 0.05", "timeout_s: .nan", ["mine.yaml:8: measure.timeout_s: nan", "1000000"]),
        ("budget_s: 0.05", "compile_timeout_s: 1e308", ["mine.yaml:8: measure.compile_timeout_s: 1e+308", "1000000"]),
        ("budget_s: 0.05", "rest_s: 1e400", ["mine.yaml:8: measure.rest_s: inf", "1000000"]),
        ("budget_s: 0.05", "target: .inf", ["mine.yaml:8: measure.target: inf", "1000000"]),
        ("budget_s: 0.05", "rest_growth: 1e9", ["mine.yaml:8: measure.rest_growth", "10"]),
        ("budget_s: 0.05", "max_rests: 100000", ["mine.yaml:8: measure.max_rests: 100000", "300"]),
        ("budget_s: 0.05", "backlog_doublings: 99999", ["mine.yaml:8: measure.backlog_doublings: 99999", "20"]),
        ("min_samples: 8", "max_samples: 1000001", ["mine.yaml:8: measure.max_samples: 1000001", "1000000"]),
        ("min_samples: 8", "warmup_calls: 999999999999999999999", ["mine.yaml:8: an integer of 21 digits"]),
        ("batch: 1", "batch: 2147483648", ["mine.yaml:3: axes.batch.0: 2147483648", "less than 2147483648"]),
        ("square-48", f"square-{'9' * 2000}", ["mine.yaml:3: axes.layer.0", "at most 1000 characters"]),
        ("methods:", "method:", ["mine.yaml", "methods"]),
    ],
)  # fmt: skip
def test_bad_input_names_file_line_key_and_what_would_be_valid(
    tmp_path: Path, old: str, new: str, says: list[str]
) -> None:
    with pytest.raises(UserError) as e:
        make_plan(write(tmp_path, old, new), on_cpu=True)
    for part in says:
        assert part in str(e.value), e.value
    assert "\n" not in str(e.value)


THOUSAND = f"[{', '.join(map(str, range(1, 1001)))}]"


def test_more_cases_than_can_be_listed_are_counted_and_refused(tmp_path: Path) -> None:
    """Before one of them is made: a billion would take hours."""
    one = write(tmp_path, "batch: 1, seq: 16", f"batch: {THOUSAND}, seq: {THOUSAND}, accumulation: {THOUSAND}")
    with pytest.raises(
        UserError, match=r"mine\.yaml:5: methods\.0: 2,000,000,000 cases \(2 of layer x 1,000 of batch x"
    ):
        make_plan(one, on_cpu=True)
    on_request = one.replace("mine", "requested")
    Path(on_request).write_text(SWEEP + f"on_request: {{batch: {THOUSAND}, seq: {THOUSAND}}}\n")
    make_plan(on_request, on_cpu=True)
    with pytest.raises(UserError, match=r"requested\.yaml:5: methods\.0: 2,004,002 cases"):
        make_plan(on_request, on_cpu=True, where=["case_id=x"])
    many = one.replace("mine", "many")
    few = f"[{', '.join(map(str, range(1, 221)))}]"
    entries = SWEEP.replace("batch: 1, seq: 16", f"batch: {few}, seq: {few}").replace(
        "[square-48, square-64]", "square-48"
    )
    Path(many).write_text(entries)
    with pytest.raises(
        UserError, match=r"many\.yaml:7: methods\.2: with the entries before it 145,200 cases .* 100,000"
    ):
        make_plan(many, on_cpu=True)


@pytest.mark.parametrize("text", ["", "[]", "3", "axes", "~"])
def test_a_file_that_is_no_mapping(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"x\.yaml:1: .*methods"):
        make_plan(str(path), on_cpu=True)


def test_unknown_sweeps_and_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"tabel1.*table1"):
        make_plan("tabel1", on_cpu=True)
    (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not UTF-8"):
        make_plan(str(tmp_path / "x.yaml"), on_cpu=True)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(
    ["linear", "block", "model", "all", "square-64", "square-0", "tinyllama", "full", "lora", "paca", "eager",
     "upper-1/2", "upper-0/0", "every-2nd", "every-0th", "lisa-1", "lisa-0", "-1", "1e400", "fp32", "amp-bf16",
     "q_proj", "cold", "forward", "step", "/", ".", "\0"]
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda v: st.lists(v, max_size=3) | st.dictionaries(st.sampled_from(["rank", "model", "x", ""]), v, max_size=2),
    max_leaves=5,
)
PLACES = st.sampled_from(
    [("axes", k) for k in ("level", "model", "layer", "batch", "seq", "precision", "rank", "l2", "targets", "method",
                           "trainable_layers", "x")]
    + [("methods", 1, k) for k in ("method", "impl", "rank", "alpha", "dropout", "adapter_dtype")]
    + [("axes",), ("methods",), ("methods", 1), ("passes",), ("clocks",), ("measure",), ("cpu",), ("description",)]
    + [("measure", "budget_s"), ("cpu", "axes"), ("y",)]
)  # fmt: skip


def run_list(capsys: pytest.CaptureFixture[str], path: Path) -> None:
    """`bench list` on a file ends with 0, or with 2 and one sentence."""
    with pytest.raises(SystemExit) as e:
        main(["list", str(path), "--gpu", "cpu"])
    captured = capsys.readouterr()
    assert e.value.code in (0, None, 2), captured.err
    if e.value.code == 2:
        assert captured.err.startswith("error: ") and captured.err.count("\n") == 1, captured.err


FUZZ = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
# Other random examples each time: 50 in `make test`, 200 in `make test-all`.
TIMES = pytest.mark.parametrize("time", [0, *(pytest.param(i, marks=pytest.mark.slow) for i in (1, 2, 3))])


@TIMES
@FUZZ
@given(place=PLACES, value=VALUES)
def test_fuzzed_values_end_in_one_sentence(
    time: int, capsys: pytest.CaptureFixture[str], tmp_path: Path, place: tuple[str | int, ...], value: object
) -> None:
    import yaml

    base = tmp_path / "base.yaml"
    base.write_text(SWEEP)
    sweep = load_yaml(base).value
    at = sweep
    for key in place[:-1]:
        at = at.setdefault(key, {}) if isinstance(at, dict) else at[key]
    at[place[-1]] = value
    path = tmp_path / "fuzzed.yaml"
    path.write_text(yaml.safe_dump(sweep, allow_unicode=True), encoding="utf-8")
    run_list(capsys, path)


@TIMES
@FUZZ
@given(
    cut=st.integers(0, len(SWEEP)), junk=st.text(max_size=12) | st.sampled_from(["&a ", "*a", "!!set {", "<<: ", "? "])
)
def test_fuzzed_text_ends_in_one_sentence(
    time: int, capsys: pytest.CaptureFixture[str], tmp_path: Path, cut: int, junk: str
) -> None:
    path = tmp_path / "fuzzed.yaml"
    path.write_text(SWEEP[:cut] + junk + SWEEP[cut:], encoding="utf-8", errors="surrogatepass")
    run_list(capsys, path)


@TIMES
@FUZZ
@given(data=st.binary(max_size=60))
def test_fuzzed_bytes_end_in_one_sentence(
    time: int, capsys: pytest.CaptureFixture[str], tmp_path: Path, data: bytes
) -> None:
    path = tmp_path / "fuzzed.yaml"
    path.write_bytes(data)
    run_list(capsys, path)


def test_exit_status_2_reaches_the_shell_and_changes_nothing(bench: Bench, cli: Cli, tmp_path: Path) -> None:
    path = write(tmp_path, "batch: 1", "bacth: 1")
    out = tmp_path / "out"
    done = bench("run", path, "--out", out)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and "bacth" in done.stderr and "Traceback" not in done.stderr
    assert not out.exists()
    for flags in (
        ["--gpu", "a100"], ["--gpu", "zx81"], ["--retry", "sad"], ["--repeat", "0"], ["--nonsense"],
        ["--repeat", "1000000000"], ["--repeat", "9" * 30], ["--threads", "9" * 30], ["--wait-quiet", "1e300h"],
        ["--wait-quiet", "9" * 5000], ["--wait-quiet", "278h"], ["--out", ""], ["--out", " "], ["--out", "/"],
        ["--out", "/dev/null"], ["--out", "/dev/null/x"], ["--out", "/proc/nowhere/x"], ["--out", __file__],
    ):  # fmt: skip
        done = cli("run", "smoke", "--out", out, *flags)
        assert done.returncode == 2, flags
        assert flags[0] in done.stderr
        assert not out.exists()


@pytest.mark.parametrize("arguments", [["--help"], ["list"], ["list", "layers"], ["run", "--help"]])
def test_light_commands_import_no_torch(arguments: list[str]) -> None:
    code = f"import sys; sys.argv = ['bench', *{arguments!r}]\nfrom bench.cli import main\n"
    code += "try: main()\nexcept SystemExit as e: assert not e.code\n"
    code += "assert not {'torch', 'triton', 'transformers', 'pandas', 'matplotlib'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
