"""The seed of a dropout mask comes from the host, where torch's generator of the GPU is asked: no launch is needed for
it, it is another one at each call, and whatever sets that generator sets it too."""

import pytest
import torch

from kernels import lora_linear, lora_linear_group
from tests.kernels.stub_driver.calls import Call
from tests.kernels.stub_driver.pretended_gpus import capturing, generators, tensors_on
from tests.kernels.stub_driver.watch import Watch, watching

KINDS = pytest.mark.parametrize("kind", ["lora", "group"])
CALL = Call("group", bias=False)


def forward(kind: str, seed: int | None = None, gpu: int = 0) -> None:
    t = CALL.tensors
    with tensors_on(gpu), torch.no_grad():
        if kind == "lora":
            lora_linear(t["x"], t["weight0"], t["a0"], t["b0"], scale=0.5, dropout_p=0.1, seed=seed, scheme="cublas")
        else:
            columns = [[t[f"{name}{i}"] for i in range(2)] for name in ("weight", "a", "b")]
            lora_linear_group(t["x"], *columns, scale=0.5, dropout_p=0.1, seed=seed)


def drawn(watch: Watch) -> list[int]:
    """What was handed over since the last time."""
    values = [value for _, value in watch.seeds]
    watch.seeds.clear()
    return values


@KINDS
def test_each_call_is_handed_another_seed(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: object, **options: object) -> None:
        raise AssertionError("a seed was drawn by a launch")

    with watching(anew=False) as watch:
        forward(kind)
        monkeypatch.setattr(torch, "randint", refuse)
        generators[0].manual_seed(7)
        drawn(watch)
        for _ in range(5):
            forward(kind)
        found = drawn(watch)
        assert len(set(found)) == 5
        assert generators[0].offset == 5 * 4
        generators[0].manual_seed(8)
        forward(kind)
        assert drawn(watch)[0] not in found
    assert not watch.differing, "\n".join(watch.differing)
    assert watch.kept["project_kernel"]


@KINDS
def test_what_is_computed_again_is_handed_the_same_seed(kind: str) -> None:
    """As under checkpoint and fork_rng, which set the generator back to where it was."""
    with watching(anew=False) as watch:
        generators[0].manual_seed(7)
        forward(kind)
        before = generators[0].offset
        drawn(watch)
        forward(kind)
        first = drawn(watch)
        forward(kind)
        assert drawn(watch) != first
        generators[0].set_offset(before)
        forward(kind)
        assert drawn(watch) == first


@KINDS
def test_a_seed_that_is_given_is_handed_over_whatever_it_is(kind: str) -> None:
    """Triton compiles an integer of 1, or a multiple of 16, into the kernel unless it is told not to."""
    values = (16, 0, 1, 2, -1, 32, 2**31, 2**62 + 5, -(2**63), 2**63 - 1, 1)
    with watching() as watch:
        for value in values:
            forward(kind, value)
            assert set(drawn(watch)) == {value}
    assert not watch.differing, "\n".join(watch.differing)
    assert len(watch.functions) == 1
    assert watch.kept["project_kernel"] == len(values) - 1


@KINDS
def test_a_capture_draws_on_the_device_and_compiles_nothing(kind: str) -> None:
    """What is captured runs again and again: its seed must not be a number. A kernel cannot be loaded meanwhile."""
    with watching() as watch:
        forward(kind)
        address, _ = watch.seeds[0]
        with capturing():
            forward(kind)
            forward(kind)
        assert all(other != address and value == 0 for other, value in watch.seeds[1:])
    assert not watch.differing, "\n".join(watch.differing)
    assert len(watch.functions) == 1


def test_a_gpu_has_a_generator_of_its_own() -> None:
    for generator in generators:
        generator.manual_seed(7)
    forward("lora", gpu=1)
    assert [generator.offset for generator in generators] == [0, 4]
