"""Tensor maps that are kept: the driver encodes each once, and what a launch is handed is what its tensors need."""

import weakref
from collections import Counter
from functools import partial
from typing import Any

import pytest
import torch

from kernels.runtime import tensor_maps
from kernels.runtime.tensor_maps import Layout, below_descriptors, forget_maps
from tests.kernels.stub_driver.calls import Call, misaligned
from tests.kernels.stub_driver.pretended_gpus import launches, maps, on_stream, refusing, tensors_on
from tests.kernels.stub_driver.watch import watching

TMA = Call(scheme="epilogue_tma/epilogue_tma")
INVALID_VALUE, LAUNCH_FAILED = 1, 719


class Gemm:
    """The TMA product of one shape, on tensors of our own, whose addresses a test can choose."""

    def __init__(self, m: int = 48, n: int = 64, k: int = 96, keep: bool = True, programs: int = 132) -> None:
        from kernels.lora.gemm_tma import gemm_tma_launch
        from kernels.runtime.dispatch import Case, choose_tile

        case = Case(m, n, k, 8, 90, 132, False)
        self.m, self.n, self.k = m, n, k
        self.launch = gemm_tma_launch(
            m, n, k, 8, choose_tile("gemm_tma", case, m, n), stride_xm=k, stride_wk=1, stride_wn=k, stride_vr=1,
            stride_vn=8, stride_sm=16, programs=programs, dtype=torch.bfloat16, keep=keep,
        )  # fmt: skip

    def tensors(self) -> dict[str, Any]:
        shapes = {
            "d_x": (self.m, self.k), "d_w": (self.n, self.k), "d_y": (self.m, self.n), "p_s": (1, self.m, 16),
            "p_v": (self.n, 8),
        }  # fmt: skip
        made: dict[str, Any] = dict.fromkeys(self.launch.inputs)
        return made | {name: torch.empty(shape, dtype=torch.bfloat16) for name, shape in shapes.items()}

    def __call__(self, tensors: dict[str, Any]) -> dict[str, str]:
        """What the driver is handed."""
        launches()
        with tensors_on(0):
            self.launch(**tensors)
        (handed,) = launches()
        return handed


def encoded() -> Counter[str]:
    """By address."""
    return Counter(found["base"] for found in maps())


def addresses(tensors: dict[str, Any]) -> Counter[str]:
    return Counter(f"{tensors[name].data_ptr():#x}" for name in ("d_x", "d_w", "d_y"))


def test_each_operand_is_encoded_once_for_its_address() -> None:
    forget_maps()
    gemm = Gemm()
    tensors = gemm.tensors()
    first = gemm(tensors)
    maps()
    assert gemm(tensors) == first
    maps()
    for _ in range(3):
        assert gemm(tensors) == first
    assert not maps()
    moved = tensors | {"d_x": tensors["d_x"].clone()}
    assert gemm(moved) != first
    assert encoded() == Counter([f"{moved['d_x'].data_ptr():#x}"])
    assert gemm(tensors) == first
    assert not maps()


def test_kept_maps_are_those_that_triton_encodes() -> None:
    """Base, sizes, strides, box, element type, swizzle, L2 promotion and fill: the driver's every argument."""
    kept, own = Gemm(), Gemm(keep=False)
    tensors = kept.tensors()
    kept(tensors)
    forget_maps()
    maps()
    handed = kept(tensors)
    by_us = maps()
    by_triton = own(tensors)
    assert by_us == maps()
    assert handed["parameters"] == by_triton["parameters"]


def test_an_address_with_another_shape_has_another_map() -> None:
    """Memory that was freed comes back as another tensor."""
    memory = torch.empty(64 * 96, dtype=torch.bfloat16)
    for m in (48, 32, 48, 16, 32):
        gemm, own = Gemm(m=m), Gemm(m=m, keep=False)
        tensors = gemm.tensors() | {"d_x": memory[: m * 96].view(m, 96)}
        for _ in range(2):
            gemm(tensors)
        maps()
        handed = gemm(tensors)["parameters"]
        assert not maps()
        assert handed == own(tensors)["parameters"]


def test_maps_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensor_maps, "MOST", 4)
    forget_maps()
    gemm, own = Gemm(), Gemm(keep=False)
    several = [gemm.tensors() for _ in range(5)]
    for tensors in (*several, *several):
        assert gemm(tensors)["parameters"] == own(tensors)["parameters"]
        assert len(tensor_maps._maps) <= 4 and len(tensor_maps._together) <= 4


def test_a_map_holds_no_memory() -> None:
    gemm = Gemm()
    tensors = gemm.tensors()
    for _ in range(2):
        gemm(tensors)
    held = [weakref.ref(tensors[name].untyped_storage()) for name in ("d_x", "d_w", "d_y")]
    tensors.clear()
    assert not any(storage() is not None for storage in held)


def test_where_triton_is_made_otherwise_it_encodes_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    from triton.backends.nvidia import driver

    kept = Gemm()
    tensors = kept.tensors()
    expected = kept(tensors)["parameters"]
    wrap = driver.wrap_handle_tensordesc
    monkeypatch.setattr(driver, "wrap_handle_tensordesc", lambda *given: partial(wrap(*given)))
    fallback = Gemm(programs=1)  # another constant: Triton makes another launcher
    fallback(tensors)
    maps()
    for _ in range(2):
        assert fallback(tensors)["parameters"] == expected
        assert encoded() == addresses(tensors)


@pytest.mark.parametrize("more", [(), (0,)], ids=["as expected", "one argument more"])
def test_the_way_below_is_taken_where_it_hands_over_the_same(more: tuple[int, ...]) -> None:
    """A launcher made as Triton's is, but for what it adds to each descriptor."""
    handed: list[Any] = []

    def wrap(launcher: Any, tensordesc_meta: Any) -> Any:
        def expand(*arguments: Any) -> None:
            descriptor, *rest = arguments
            launcher(*make_tensordesc_arg(descriptor, tensordesc_meta[0]), *more, *rest)

        return expand

    class Run:
        launch = staticmethod(wrap(lambda *arguments: handed.append(arguments), [{"swizzle": 0}]))

        def __call__(self, *arguments: Any) -> None:
            self.launch(*arguments)

    layout = Layout((4, 8), (8, 1), (4, 8))
    tensor = torch.empty(4, 8, dtype=torch.bfloat16)
    own = Run()
    run, expand = below_descriptors(own, [layout], (), (tensor, None), (3,))
    assert (run is own) == bool(more)
    assert not handed  # nothing is launched to find out
    assert len(expand((tensor, None))) == (2 if more else 3)


def make_tensordesc_arg(descriptor: Any, meta: Any) -> list[Any]:
    return ["map", meta["swizzle"]]


@pytest.mark.parametrize("off", ["d_x", "d_w", "d_y"])
def test_no_map_of_a_misaligned_tensor(off: str) -> None:
    gemm = Gemm()
    tensors = gemm.tensors()
    gemm(tensors)
    with pytest.raises(AssertionError, match="16-byte aligned"):
        gemm(tensors | {off: misaligned(tensors[off])})


def test_the_driver_refuses_a_map_that_a_gpu_could_not_use() -> None:
    """The stub is as strict as the driver: nothing above it stands in for it."""
    from triton.runtime import driver

    def encode(address: int, strides: list[int], box: list[int]) -> None:
        utils = driver.active.utils
        fill = getattr(utils, "fill_tma_descriptor_tiled", None) or utils.fill_tma_descriptor
        fill(address, 3, 2, 9, box, [48, 96], strides, 0)

    encode(4096, [96, 1], [16, 64])
    for address, strides, box in ((4104, [96, 1], [16, 64]), (4096, [100, 1], [16, 64]), (4096, [96, 1], [16, 128]),
                                  (4096, [88, 1], [16, 64])):  # fmt: skip
        with pytest.raises(RuntimeError, match="refused by the stub driver"):
            encode(address, strides, box)


def test_an_error_of_the_driver_is_an_exception() -> None:
    gemm = Gemm()
    tensors = gemm.tensors()
    for _ in range(2):
        expected = gemm(tensors)
    with refusing(launches=LAUNCH_FAILED), pytest.raises(RuntimeError, match="refused by the stub driver"):
        gemm(tensors)
    moved = tensors | {"d_y": tensors["d_y"].clone()}
    with refusing(maps=INVALID_VALUE), pytest.raises(RuntimeError, match="refused by the stub driver"):
        gemm(moved)
    maps()
    assert gemm(moved) != expected
    assert len(maps()) == 1  # what was refused was not kept
    assert gemm(tensors) == expected


@pytest.mark.parametrize("call", [TMA, Call("paca")], ids=["lora", "paca"])
def test_an_error_in_a_kept_launch_reaches_the_caller(call: Call) -> None:
    for _ in range(2):
        call(0)
    with refusing(launches=LAUNCH_FAILED), pytest.raises(RuntimeError, match="refused by the stub driver"):
        call(0)
    call(0)


def test_the_stream_is_the_current_one_at_each_call() -> None:
    with watching(anew=False) as watch:
        for address in (0x57AE0, 0x5000, 0x6000, 0x5000):
            with on_stream(0, address):
                watch.streams.clear()
                TMA(0)
                assert watch.streams == {f"{address:#x}"}
    assert not watch.differing, "\n".join(watch.differing)
    assert watch.kept["gemm_tma_kernel"]


def test_a_profiler_sees_launches_with_kept_maps() -> None:
    from triton import knobs

    gemm = Gemm()
    tensors = gemm.tensors()
    for _ in range(2):
        expected = gemm(tensors)
    told: list[str] = []

    def note(metadata: Any) -> None:
        told.append(metadata.get()["name"])

    for hook in (knobs.runtime.launch_enter_hook, knobs.runtime.launch_exit_hook):
        hook.add(note)
        try:
            assert gemm(tensors) == expected
        finally:
            hook.remove(note)
    assert told == ["gemm_tma_kernel"] * 2
    assert gemm(tensors) == expected


def test_maps_are_of_the_layout_that_was_said() -> None:
    layout = Layout((48, 96), (104, 1), (16, 32))
    descriptor = layout.descriptor(torch.empty(1, dtype=torch.float16))
    assert (descriptor.shape, descriptor.strides, descriptor.block_shape) == ([48, 96], [104, 1], [16, 32])
    with pytest.raises(AssertionError, match="16-byte aligned"):
        Layout((48, 96), (97, 1), (16, 32)).descriptor(torch.empty(1, dtype=torch.float16))
