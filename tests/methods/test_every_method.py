"""What every method there is must do, one from outside and one that comes later as those of this project."""

from itertools import combinations
from pathlib import Path

import pytest

from bench.methods.registry import methods, name_of, trainable_params
from bench.models.build import build
from tests.models.tiny import GPT2, LLAMA, make_case, write_config

FIELDS = {"gpt2": GPT2, "llama": LLAMA}
R = 4
# Values that train of a layer of N outputs and K inputs, counted here by hand; a new method says it here again.
TRAINED = {
    "lora": lambda n, k: R * (n + k),
    "lora-fa": lambda n, k: R * n,
    "paca": lambda n, k: R * n,
    "bitfit": lambda n, k: n,
    "dora": lambda n, k: R * (n + k) + n,
    "qlora": lambda n, k: R * (n + k),
    "qpaca": lambda n, k: R * n,
}
# (N, K) of the layers of one block.
LAYERS = {
    "gpt2": [(96, 32), (32, 32), (128, 32), (32, 128)],
    "llama": [(32, 32), (16, 32), (16, 32), (32, 32), (48, 32), (48, 32), (32, 48)],
}
ADAPTING = [name for name, method in methods().items() if method.adapts]


@pytest.mark.parametrize("upper", ["all", "upper-1/2"])
@pytest.mark.parametrize("family", FIELDS)
@pytest.mark.parametrize("method", ADAPTING)
def test_what_trains(method: str, family: str, upper: str, tmp_path: Path) -> None:
    """As many values by hand, by closed form and in what was built; these parameters require grad, and no other."""
    case = make_case(write_config(tmp_path, FIELDS[family]), method, trainable_layers=upper, rank=R)
    if "rank" not in methods()[method].axes:
        case = make_case(case.model, method, trainable_layers=upper)
    work = build(case, "cpu")
    blocks = range(4) if upper == "all" else range(2, 4)
    by_hand = len(blocks) * sum(TRAINED[method](n, k) for n, k in LAYERS[family])
    assert work.trainable_params == trainable_params(case) == by_hand
    declared = {id(leaf) for _, leaf in work.leaves}
    assert declared == {id(p) for p in work.model.parameters() if p.requires_grad}
    assert {int(part) for name, _ in work.leaves for part in name.split(".") if part.isdigit()} == set(blocks)
    work.backward(work.forward())
    work.check_leaves()


@pytest.mark.parametrize(("one", "other"), combinations(methods(), 2))
def test_no_two_methods_look_alike(one: str, other: str) -> None:
    """Neither by label nor by colour, where a figure shows both."""
    first, second = methods()[one], methods()[other]
    assert first.label != second.label
    assert not set(first.colours) & set(second.colours)
    nearest = min(_distance(a, b) for a, b in zip(first.colours, second.colours, strict=False))
    assert nearest > 25, f"{one} and {other}: {nearest:.0f} of 441"


def _distance(one: str, other: str) -> float:
    """Euclidean, of the values of red, green and blue."""
    return sum((int(one[i : i + 2], 16) - int(other[i : i + 2], 16)) ** 2 for i in (1, 3, 5)) ** 0.5


def test_a_folder_s_underscores_are_hyphens() -> None:
    assert name_of(Path("bench/methods/lora_fa")) == "lora-fa" in methods()
