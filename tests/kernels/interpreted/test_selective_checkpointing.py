"""Selective checkpointing of blocks whose layers are this project's: what a kernel writes into must not be kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("transformers")

from bench.case import Case
from bench.methods.registry import methods
from bench.models.build import build
from kernels.runtime.dispatch import using_tiles
from kernels.runtime.tile_tables import Tile
from tests.models.tiny import LLAMA, make_case, write_config

# Wide enough for products to be kept, and of a rank at which dispatch leaves them to cuBLAS and adds to their result.
# A group of siblings and a layer alone, and coarse tiles: the interpreter takes long for DoRA's norms.
FIELDS = {**LLAMA, "hidden_size": 256, "num_attention_heads": 8, "num_key_value_heads": 1}
COARSE = {"row_norms": Tile(64, 0, 128, 2, 4, "")}
AXES: dict[str, Any] = {"rank": 72, "targets": "k_proj,v_proj,o_proj"}
TUNED = [(name, impl) for name, method in methods().items() for impl, its in method.impls.items() if its.tuned]


def _run(case: Case) -> dict[str, Tensor]:
    """Output and gradients."""
    work = build(case, "cpu")
    out = work.forward()
    assert isinstance(out, Tensor)
    work.backward(out)
    return {"output": out.detach()} | {name: leaf.grad for name, leaf in work.leaves if leaf.grad is not None}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("method", "impl"), TUNED)
def test_gradients_are_the_same_to_the_last_bit(method: str, impl: str, tmp_path: Path) -> None:
    if impl.startswith("peft"):
        pytest.importorskip("peft")
    case = make_case(write_config(tmp_path, FIELDS), method, "block", impl=impl, **AXES)
    with using_tiles(COARSE):
        plain, found = _run(case), _run(replace(case, gradient_checkpointing="selective"))
    assert plain.keys() == found.keys() and len(plain) > 1
    assert [name for name in plain if not torch.equal(found[name], plain[name])] == []
