"""From sweep files to cases: what is expanded, and what is refused with which words."""

from pathlib import Path

import pytest

from bench.errors import UserError
from bench.methods.registry import methods, trainable_params
from bench.sweeps.expand import make_plan
from bench.sweeps.file import sweep_names
from tests.conftest import SWEEP


def write(tmp_path: Path, old: str = "", new: str = "") -> str:
    path = tmp_path / "mine.yaml"
    assert old in SWEEP
    path.write_text(SWEEP.replace(old, new, 1))
    return str(path)


def test_the_sweeps_that_come_along() -> None:
    assert {"table1", "table1-paper", "layers", "lengths", "grid", "smoke"} <= set(sweep_names())


@pytest.mark.parametrize("on_cpu", [True, False], ids=["cpu", "gpu"])
@pytest.mark.parametrize("name", sweep_names())
def test_every_sweep_expands(name: str, on_cpu: bool) -> None:
    plan = make_plan(name, on_cpu)
    assert plan.cases and len({c.case_id for c in plan.cases}) == len(plan.cases)
    assert plan.clocks == ("cpu-time",) if on_cpu else plan.clocks[0] == "eager", "the headline clock comes first"
    for case in plan.cases:
        assert trainable_params(case) > 0


def test_table1_is_the_papers_on_a_gpu_and_one_block_on_a_cpu() -> None:
    plan = make_plan("table1", on_cpu=False)
    shapes = {(c.level, c.model, c.batch, c.seq, c.precision) for c in plan.cases}
    assert shapes == {("model", m, 4, s, "bf16") for m in ("gpt2-medium", "gpt2-xl", "tinyllama") for s in (512, 1024)}
    lora = next(c for c in plan.cases if c.method == "lora")
    assert (lora.rank, lora.alpha, lora.dropout, lora.targets) == (8, 32.0, 0.1, "all-linear")
    paca = next(c for c in plan.cases if c.method == "paca")
    assert (paca.rank, paca.alpha, paca.dropout) == (16, 64.0, None)
    assert ("forward", "host") in plan.row_keys

    cpu = make_plan("table1", on_cpu=True)
    assert {(c.level, c.batch, c.seq, c.precision, c.l2) for c in cpu.cases} == {
        ("block", 1, s, "fp32", None) for s in (64, 128)
    }
    kinds = [(c.method, c.impl) for c in cpu.cases]
    ours = {(m, i) for m in ("lora", "paca") for i in ("eager", "triton")}
    assert set(kinds) == {("full", "eager"), ("lora", "peft"), *ours}, "peft-fp32 is peft in fp32"
    assert len(kinds) == 3 * 2 * 6


def test_peers_has_every_implementation_at_every_shape_and_group() -> None:
    plan = make_plan("peers", on_cpu=False)
    kinds = {(c.method, c.impl, c.compile) for c in plan.cases}
    own = {name: methods()[name].impls for name in ("full", "lora", "paca")}
    assert {k[:2] for k in kinds} == {(method, impl) for method, impls in own.items() for impl in impls}
    layers = {(c.model, c.layer) for c in plan.cases}
    assert len(plan.cases) == len(kinds) * len(layers) == len(kinds) * (15 + 4 + 3)
    groups = {(m, g) for m in ("tinyllama", "llama2-7b") for g in ("self_attn.qkv", "mlp.gate_up")}
    assert groups <= layers and not any(g in (m or "") + (x or "") for m, x in layers - groups for g in ("qkv", "_up"))
    assert {(c.rank, c.dropout) for c in plan.cases if c.method == "lora"} == {(16, 0.0)}
    assert {(c.tokens, c.l2) for c in plan.cases} == {(4096, "cold")}
    cpu = make_plan("peers", on_cpu=True)
    there = {(c.method, c.impl, c.compile) for c in cpu.cases}
    assert there == kinds - {("lora", "peft-fp32", None)}, "which is peft in fp32"
    assert any(c.layer == "self_attn.qkv" for c in cpu.cases) and len({c.model for c in cpu.cases}) == 2


def test_a_layer_is_taken_from_the_models_that_have_it(tmp_path: Path) -> None:
    def layers(model: str, layer: str) -> list[tuple[str | None, str | None]]:
        new = f"model: {model}, layer: {layer}"
        path = write(tmp_path, "layer: [square-48, square-64]", new)
        return [(c.model, c.layer) for c in make_plan(path, on_cpu=True, where=["method=full"]).cases]

    assert layers("[tinyllama, gpt2-xl]", "[attn.c_proj, self_attn.qkv]") == [
        ("tinyllama", "self_attn.qkv"), ("gpt2-xl", "attn.c_proj"),
    ]  # fmt: skip
    assert layers("[gpt2-xl, tinyllama]", "groups") == [("tinyllama", "self_attn.qkv"), ("tinyllama", "mlp.gate_up")]
    for layer, says in (
        ("q_proj", "'q_proj' is no layer of tinyllama or gpt2-xl. Valid: all, square-N, groups, self_attn.q_proj"),
        ("mlp", "attn.c_attn"),
    ):
        with pytest.raises(UserError, match=says):
            layers("[tinyllama, gpt2-xl]", layer)
    with pytest.raises(UserError, match=r"no model here has groups\. Valid: all, square-N, attn\.c_attn"):
        layers("[gpt2-xl, gpt2-medium]", "groups")


def test_layers_has_every_shape_once_and_the_squares() -> None:
    plan = make_plan("layers", on_cpu=False)
    full = [c for c in plan.cases if c.method == "full"]
    assert {c.layer for c in full if c.model is None} == {"square-1024", "square-2048", "square-4096"}
    shapes = [(c.model, p.in_features, p.out_features) for c in full if c.model for p in c.projections]
    assert len(shapes) == len(set(shapes)) == 15
    assert {c.l2 for c in plan.cases} == {"cold"}
    assert all(c.tokens == 4096 for c in plan.cases)


def test_the_same_case_has_the_same_id_everywhere(tmp_path: Path) -> None:
    here = {c.case_id for c in make_plan(write(tmp_path), on_cpu=True).cases}
    there = {c.case_id for c in make_plan(write(tmp_path, "batch: 1", "batch: [1]"), on_cpu=True).cases}
    assert here == there
    assert here.isdisjoint(c.case_id for c in make_plan(write(tmp_path, "batch: 1", "batch: 2"), on_cpu=True).cases)


def test_full_fine_tuning_is_one_case_however_many_ranks(tmp_path: Path) -> None:
    path = write(tmp_path, "precision: fp32", "precision: fp32, rank: [4, 8], alpha: 8")
    cases = make_plan(path, on_cpu=True).cases
    assert sum(c.method == "full" for c in cases) == 2, "one for each layer"
    assert all(c.rank is None for c in cases if c.method == "full")


def test_where_narrows_and_says_what_it_could_have_taken() -> None:
    def count(*where: str) -> int:
        return len(make_plan("table1", False, where).cases)

    assert count() == 36
    assert count("model=tinyllama") == 12
    assert count("model=tinyllama,gpt2-xl", "method=lora") == 12
    assert count("model=tinyllama,gpt2-xl", "method=lora", "impl=eager") == 4
    assert count("rank=8") == 18
    assert count("alpha=32") == 18
    chosen = make_plan("table1", False, ["seq=512", "method=paca"]).cases
    assert count(f"case_id={chosen[0].case_id}") == 1
    assert make_plan("table1", False, ["pass=backward"]).passes == ("backward",)
    for bad, says in [
        ("model=tinylama", "gpt2-medium, gpt2-xl, tinyllama"),
        ("modle=tinyllama", "model"),
        ("tinyllama", "axis=value"),
        ("pass=sideways", "forward, backward"),
    ]:
        with pytest.raises(UserError, match="--where") as e:
            count(bad)
        assert says in str(e.value)
    with pytest.raises(UserError, match="not in this sweep"):
        count("rank=8", "rank=16")
