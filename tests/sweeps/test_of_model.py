"""--model: the cases it means, what is refused, and the sweep that the record keeps."""

import shlex
from pathlib import Path

import pytest

from bench.errors import UserError
from bench.methods.registry import methods
from bench.sweeps.expand import make_plan
from bench.sweeps.of_model import ModelRequest, asked_for, folder_name, model_plan
from tests.conftest import Cli
from tests.models.tiny import LLAMA, write_config


def test_it_is_table_1_of_another_model() -> None:
    for on_cpu in (False, True):
        mine = model_plan(ModelRequest("tinyllama"), on_cpu)
        table = make_plan("table1", on_cpu, ["model=tinyllama"])
        assert {c.case_id for c in mine.cases} == {c.case_id for c in table.cases}
        assert (mine.passes, mine.clocks, mine.settings) == (table.passes, table.clocks, table.settings)
    assert {c.level for c in mine.cases} == {"block"} and {(c.batch, c.seq) for c in mine.cases} == {(1, 64), (1, 128)}


def test_options_reach_the_cases_that_they_are_of() -> None:
    request = ModelRequest(
        "Qwen/Qwen3-0.6B", (1, 2), (256,), 16, "q_proj,v_proj", 0.0, ("bf16", "fp16"), ("all", "upper-1/2"), ("lora",),
        ("eager",),
    )  # fmt: skip
    plan = model_plan(request, False)
    assert {c.model for c in plan.cases} == {"qwen3-0.6b"} and len(plan.cases) == 2 * 2 * 2 * 2
    for case in plan.cases:
        adapter = (None,) * 4 if case.method == "full" else (16, 32.0, 0.0, "q_proj,v_proj")
        assert (case.rank, case.alpha, case.dropout, case.targets) == adapter
    for axis, found in (("batch", {1, 2}), ("precision", {"bf16", "fp16"}), ("trainable_layers", {"all", "upper-1/2"})):
        assert {getattr(c, axis) for c in plan.cases} == found
    assert {c.method for c in plan.cases} == {"full", "lora"}, "what ratios are taken over comes along"


def test_every_adapter_gets_rank_and_targets_and_only_lora_dropout() -> None:
    plan = model_plan(ModelRequest("tinyllama", rank=4, targets="o_proj", dropout=0.2), False)
    adapters = [c for c in plan.cases if methods()[c.method].adapts]
    assert {(c.rank, c.targets) for c in adapters} == {(4, "o_proj")}
    assert {(c.method, c.dropout) for c in adapters} == {("lora", 0.2), ("paca", None)}


def test_the_sweep_in_the_record_means_the_same_cases(tmp_path: Path) -> None:
    request = ModelRequest("mistral-7b", batch=(2,), rank=4, targets="q_proj,v_proj", method=("paca",))
    for on_cpu in (False, True):
        plan = model_plan(request, on_cpu)
        (tmp_path / "again.yaml").write_text(plan.text)
        again = make_plan(str(tmp_path / "again.yaml"), on_cpu)
        assert again.cases == plan.cases and (again.passes, again.clocks) == (plan.passes, plan.clocks)
        assert again.settings == plan.settings and again.description == plan.description


def test_its_words_ask_for_the_same(cli: Cli) -> None:
    request = ModelRequest("tinyllama", batch=(1, 2), rank=4, trainable_layers=("upper-1/2",), dropout=0.0)
    ids = [c.case_id for c in model_plan(request, False).cases]
    listed = cli("list", *request.words, "--gpu", "h100").stdout
    assert [line.split()[0] for line in listed.splitlines()[1 : len(ids) + 1]] == ids
    assert (
        shlex.join(request.words) == "--model tinyllama --batch 1,2 --rank 4 --dropout 0.0 --trainable-layers upper-1/2"
    )


def test_lengths_end_where_attention_begins_to_slide() -> None:
    assert {c.seq for c in model_plan(ModelRequest("gemma-3-1b"), False).cases} == {512}
    assert {c.seq for c in model_plan(ModelRequest("gemma-3-4b"), False).cases} == {512, 1024}
    with pytest.raises(UserError, match=r"--seq: 1024 is longer than gemma-3-1b allows, whose attention slides .* 512"):
        model_plan(ModelRequest("gemma-3-1b", seq=(1024,)), False)


def test_folders_are_named_after_the_model(tmp_path: Path) -> None:
    assert folder_name(model_plan(ModelRequest("Qwen/Qwen3-0.6B"), True)).stem == "qwen3-0.6b"
    (tmp_path / "smoke").mkdir()
    Path(write_config(tmp_path / "smoke", LLAMA)).rename(tmp_path / "smoke" / "config.json")
    plan = model_plan(ModelRequest(str(tmp_path / "smoke"), seq=(8,)), True)
    assert folder_name(plan).stem == "model-smoke", "results/<key>/smoke is the sweep's"
    assert asked_for(None, None) == "table1"


def test_models_of_a_sweep_file_are_seen_from_its_folder(tmp_path: Path, cli: Cli) -> None:
    for folder in ("a/tiny", "b/tiny"):
        (tmp_path / folder).mkdir(parents=True)
        Path(write_config(tmp_path / folder, LLAMA)).rename(tmp_path / folder / "config.json")
    path = tmp_path / "mine.yaml"
    path.write_text(
        "axes: {level: block, batch: 1, seq: 8, model: [a/tiny, b/tiny/config.json, Qwen/Qwen3-0.6B, qwen3-0.6b]}\n"
        "methods: [{method: full}]\n"
    )
    models = [c.model for c in make_plan(str(path), True).cases]
    assert models == [str(tmp_path / "a/tiny"), str(tmp_path / "b/tiny/config.json"), "qwen3-0.6b"]
    column = [line.split()[2] for line in cli("list", path, "--gpu", "cpu").stdout.splitlines()[1:4]]
    assert column == ["a/tiny", "b/tiny", "qwen3-0.6b"], "those of one name are told apart"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--batch 2", "--batch: this goes with --model. Of a sweep, --where narrows the cases."),
        ("smoke --trainable-layers all", "--trainable-layers: this goes with --model."),
        ("--model qwen3-8", "--model: 'qwen3-8' is neither a known model (gpt2-medium,"),
        ("--model qwen3-8", "Did you mean 'qwen3-8b'?"),
        ("--model tinyllama --batch 1,x", "--batch: '1,x' is no count. Give whole numbers above 0"),
        ("--model tinyllama --dropout 1", "--dropout: 1.0 is no dropout. Give a number from 0 to below 1."),
        ("--model tinyllama --dropout nan", "--dropout: nan is no dropout."),
        (
            "--model tinyllama --targets c_attn",
            "--targets: 'c_attn' is no linear layer of tinyllama.",
        ),
        ("--model tinyllama --rank 4096", "--rank: "),
        ("--model tinyllama --trainable-layers upper-2", "--trainable-layers: 'upper-2': the fraction"),
        ("--model tinyllama --trainable-layers 23", "--trainable-layers: '23': the model has 22 blocks. Valid: all"),
        (
            "--model tinyllama --trainable-layers lisa-0",
            "--trainable-layers: 'lisa-0': at least 1 block trains. Valid: all, upper-1/2, upper-3/4,"
            " every-2nd (every-Nth: the top block and every Nth below it), lisa-1 (lisa-G: G blocks at a time, by"
            " turns), or a count of top blocks up to 22.",
        ),
        ("--model tinyllama --trainable-layers every-99th", "'every-99th': the model has 22 blocks. Valid: all,"),
        ("--model tinyllama --gpu cpu --trainable-layers lisa-1", "one decoder block is measured, which trains whole"),
        ("--model tinyllama --gpu cpu --trainable-layers 2", "one decoder block is measured, which trains whole"),
        ("--model tinyllama --precision int8", "--precision: 'int8' is not valid."),
        ("--model tinyllama --method lara", "--method: 'lara' is not valid. Did you mean 'lora'?"),
        ("--model tinyllama --impl fast", "--impl: 'fast' is not valid."),
        ("--model", "--model"),
    ],
)
def test_a_wrong_request_is_one_sentence_that_names_its_flag(cli: Cli, arguments: str, said: str) -> None:
    words = arguments if "--gpu" in arguments else f"{arguments} --gpu h100"
    done = cli("list", *(words.split() if arguments != "--model" else ["--model"]))
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1 and said in done.stderr, done.stderr


def test_where_narrows_it_further() -> None:
    plan = model_plan(ModelRequest("tinyllama", batch=(1, 2)), False, ["batch=2", "method=full"])
    assert {c.batch for c in plan.cases} == {2} and len(plan.cases) == 2
