"""Misuse of the public functions: one sentence that names the argument, what it is, and what was expected."""

from __future__ import annotations

import pytest
import torch

from kernels import LoRALinear, PaCALinear, dora_linear, lora_linear, lora_linear_group, paca_linear
from kernels.runtime import launch

M, N, K, R = 6, 24, 40, 4


def lora_arguments(**changes):
    torch.manual_seed(0)
    arguments = {
        "x": torch.randn(M, K), "weight": torch.randn(N, K), "lora_a": torch.randn(R, K), "lora_b": torch.randn(N, R),
        "scale": 1.0,
    }  # fmt: skip
    return arguments | changes


LORA = {
    "x is a list": ({"x": [1.0]}, TypeError, "x is a list"),
    "x of integers": ({"x": torch.ones(M, K, dtype=torch.long)}, TypeError, r"x has dtype torch.int64"),
    "x of the wrong width": ({"x": torch.randn(M, K + 1)}, ValueError, r"x has shape \(6, 41\).*40"),
    "x of no dimension": ({"x": torch.tensor(1.0)}, ValueError, r"x has shape \(\)"),
    "weight of three dimensions": ({"weight": torch.randn(1, N, K)}, ValueError, r"weight has shape \(1, 24, 40\)"),
    "weight of another dtype": ({"weight": torch.randn(N, K).half()}, TypeError, r"weight has dtype torch.float16"),
    "weight elsewhere": ({"weight": torch.randn(N, K, device="meta")}, ValueError, r"weight is on meta.*cpu"),
    "lora_a of the wrong width": ({"lora_a": torch.randn(R, K + 1)}, ValueError, r"lora_a has shape \(4, 41\).*40"),
    "rank 0": (
        {"lora_a": torch.randn(0, K), "lora_b": torch.randn(N, 0)}, ValueError, r"lora_a has shape \(0, 40\)"
    ),
    "lora_b of another rank": ({"lora_b": torch.randn(N, R + 1)}, ValueError, r"lora_b has shape \(24, 5\).*\(24, 4\)"),
    "lora_b of another dtype": ({"lora_b": torch.randn(N, R).half()}, TypeError, r"lora_b has dtype torch.float16"),
    "lora_a in half over fp32": (
        {"lora_a": torch.randn(R, K).half(), "lora_b": torch.randn(N, R).half()}, TypeError, "lora_a has dtype"
    ),
    "lora_b elsewhere": ({"lora_b": torch.randn(N, R, device="meta")}, ValueError, r"lora_b is on meta"),
    "bias of the wrong length": ({"bias": torch.randn(N + 1)}, ValueError, r"bias has shape \(25,\).*\(24,\)"),
    "bias of another dtype": ({"bias": torch.randn(N).half()}, TypeError, r"bias has dtype torch.float16"),
    "scale as a string": ({"scale": "2"}, TypeError, "scale is a str"),
    "scale as a tensor": ({"scale": torch.tensor(2.0)}, TypeError, "scale is a Tensor"),
    "dropout_p of 1": ({"dropout_p": 1.0}, ValueError, "dropout_p is 1.0"),
    "negative dropout_p": ({"dropout_p": -0.1}, ValueError, "dropout_p is -0.1"),
    "seed as a float": ({"dropout_p": 0.1, "seed": 1.5}, TypeError, "seed is a float"),
    "seed of 65 bits": ({"dropout_p": 0.1, "seed": 2**64}, ValueError, "seed is 18446744073709551616"),
    "unknown scheme": ({"scheme": "f9"}, ValueError, "scheme is 'f9'"),
    "unknown backward": ({"scheme": "f1/b9"}, ValueError, "scheme is 'f1/b9'"),
}  # fmt: skip


def refused(function, arguments: dict, kind: type, words: str) -> None:
    launch.counts.clear()
    with pytest.raises(kind, match=words) as caught:
        function(**arguments)
    message = str(caught.value)
    assert "expected" in message and "\n" not in message
    assert not launch.counts, "something was launched first"


@pytest.mark.parametrize("name", LORA)
def test_lora_misuse(name: str) -> None:
    changes, kind, words = LORA[name]
    refused(lora_linear, lora_arguments(**changes), kind, words)
    lora_linear(**lora_arguments())  # a good call with equal shapes does not make the bad one pass
    refused(lora_linear, lora_arguments(**changes), kind, words)


DORA = {name: case for name, case in LORA.items() if "dropout_p" not in case[0]} | {
    "magnitude is a list": ({"magnitude": [1.0]}, TypeError, "magnitude is a list"),
    "magnitude of the wrong length": (
        {"magnitude": torch.ones(N + 1)},
        ValueError,
        r"magnitude has .*\(25,\).*\(24,\)",
    ),
    "magnitude of two dimensions": ({"magnitude": torch.ones(1, N)}, ValueError, r"magnitude has shape \(1, 24\)"),
    "magnitude in half over fp32": (
        {"magnitude": torch.ones(N).half()},
        TypeError,
        "magnitude has dtype torch.float16",
    ),
    "magnitude elsewhere": ({"magnitude": torch.ones(N, device="meta")}, ValueError, r"magnitude is on meta"),
}


@pytest.mark.parametrize("name", DORA)
def test_dora_misuse(name: str) -> None:
    changes, kind, words = DORA[name]
    good = lora_arguments(magnitude=torch.ones(N))
    refused(dora_linear, good | changes, kind, words)
    dora_linear(**good)
    refused(dora_linear, good | changes, kind, words)


def paca_arguments(**changes):
    torch.manual_seed(0)
    weight, index = torch.randn(N, K), torch.tensor([1, 5, 9, 30])
    return {"x": torch.randn(M, K), "weight": weight, "columns": weight[:, index].clone(), "index": index} | changes


PACA = {
    "x of booleans": ({"x": torch.ones(M, K, dtype=torch.bool)}, TypeError, "x has dtype torch.bool"),
    "x of the wrong width": ({"x": torch.randn(M, K + 1)}, ValueError, r"x has shape \(6, 41\)"),
    "index of two dimensions": ({"index": torch.zeros(2, 2, dtype=torch.long)}, ValueError, r"index has .*\(2, 2\)"),
    "index of floats": ({"index": torch.tensor([0.0, 1, 2, 3])}, TypeError, "index has dtype torch.float32"),
    "index out of range": ({"index": torch.tensor([0, 1, 2, K])}, ValueError, r"index of shape \(4,\) holds 40"),
    "negative index": ({"index": torch.tensor([-1, 1, 2, 3])}, ValueError, r"index of shape \(4,\) holds -1"),
    "repeated index": ({"index": torch.tensor([3, 1, 2, 3])}, ValueError, r"index of .* holds 3 more than once"),
    "index elsewhere": ({"index": torch.zeros(4, dtype=torch.long, device="meta")}, ValueError, "index is on meta"),
    "rank 0": (
        {"index": torch.zeros(0, dtype=torch.long), "columns": torch.randn(N, 0)}, ValueError, r"index has shape \(0,\)"
    ),
    "columns of another rank": ({"columns": torch.randn(N, 5)}, ValueError, r"columns has shape \(24, 5\).*\(24, 4\)"),
    "columns of another dtype": ({"columns": torch.randn(N, 4).half()}, TypeError, "columns has dtype torch.float16"),
    "weight that trains": ({"weight": torch.randn(N, K, requires_grad=True)}, ValueError, "weight .* requires grad"),
    "scale as None": ({"scale": None}, TypeError, "scale is a NoneType"),
}  # fmt: skip


@pytest.mark.parametrize("name", PACA)
def test_paca_misuse(name: str) -> None:
    changes, kind, words = PACA[name]
    refused(paca_linear, paca_arguments(**changes), kind, words)
    paca_linear(**paca_arguments())
    refused(paca_linear, paca_arguments(**changes), kind, words)


@pytest.mark.parametrize("name", ["x of the wrong width", "weight of another dtype", "bias of another dtype"])
def test_what_torch_refuses_is_its_own_error_too(name: str) -> None:
    """Code around a layer catches what F.linear raises."""
    arguments = lora_arguments(**LORA[name][0])
    with pytest.raises(RuntimeError):
        torch.nn.functional.linear(arguments["x"], arguments["weight"], arguments.get("bias"))
    with pytest.raises(RuntimeError):
        lora_linear(**arguments)
    index = torch.arange(R)
    columns = arguments["weight"][:, index]
    with pytest.raises(RuntimeError):
        paca_linear(arguments["x"], arguments["weight"], columns, index, bias=arguments.get("bias"))


def test_an_index_changed_in_place_is_read_again() -> None:
    arguments = paca_arguments()
    paca_linear(**arguments)
    arguments["index"][0] = K
    refused(paca_linear, arguments, ValueError, "holds 40")


def test_unknown_paca_scheme() -> None:
    refused(paca_linear, paca_arguments(scheme="f1"), ValueError, "scheme is 'f1'")


def test_group_misuse() -> None:
    one = lora_arguments()
    arguments = {"x": one["x"], "weights": [one["weight"]], "lora_as": [one["lora_a"]] * 2, "lora_bs": [one["lora_b"]]}
    refused(lora_linear_group, arguments | {"scale": 1.0}, ValueError, "lora_as 2")


def test_module_misuse() -> None:
    linear = torch.nn.Linear(K, N)
    refused(LoRALinear, {"base": torch.nn.ReLU(), "rank": 4, "alpha": 8}, TypeError, "base is a ReLU")
    refused(LoRALinear, {"base": torch.nn.Embedding(4, 4), "rank": 4, "alpha": 8}, TypeError, "base is a Embedding")
    refused(LoRALinear, {"base": linear, "rank": 0, "alpha": 8}, ValueError, "rank is 0")
    refused(LoRALinear, {"base": linear, "rank": 4, "alpha": 8, "dropout": 1.0}, ValueError, "dropout is 1.0")
    refused(PaCALinear, {"base": linear, "rank": K + 1, "alpha": 8}, ValueError, "rank is 41")
    wrong = {"base": linear, "rank": 2, "alpha": 8, "index": torch.tensor([1, 1])}
    refused(PaCALinear, wrong, ValueError, "holds 1 more than once")
