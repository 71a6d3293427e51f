"""python -m bench.models.inspect PATH: the shape of any causal language model of transformers, as JSON.

PATH is a config.json. The model is made on the meta device, so nothing of its size is allocated. Keys are the fields of
bench.case.shapes.ModelShape, its name aside. On failure the last line on stderr says in one sentence why.
"""

import os
import sys
from json import dumps
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from bench.case.config_json import read_config
from bench.methods.adapt import decoder_blocks
from bench.models.config import make_config, make_model, model_dropout
from bench.process import bound_memory

MEMORY = 4 << 30  # bytes; a thousand blocks of Llama take 0.05 GiB


def describe(fields: dict[str, Any]) -> dict[str, Any]:
    """What can be said of the model that a config.json's fields describe. Raises ValueError where it has no decoder."""
    config = make_config(fields)
    model = make_model(config, torch.device("meta"), torch.float32)
    _, blocks = decoder_blocks(model)
    block_params = count(blocks[0])
    if any(count(block) != block_params for block in blocks):
        raise ValueError(f"the blocks of {type(model).__name__} are not all of one size")
    positions, width = (getattr(config, name, None) for name in ("max_position_embeddings", "hidden_size"))
    for name, size in (("max_position_embeddings", positions), ("hidden_size", width)):
        if not isinstance(size, int):
            raise ValueError(f"the {config.model_type} config has no {name}")
    return {
        "model_type": fields["model_type"],
        "num_layers": len(blocks),
        "hidden_size": width,
        "max_positions": positions,
        "projections": projections(blocks[0]),
        "block_params": block_params,
        "outside_params": count(model) - len(blocks) * block_params,
        "dropout": model_dropout(model),
        "config": fields,
    }


def projections(block: nn.Module) -> list[dict[str, Any]]:
    """The linear layers of a block, in the order of its modules, as fields of bench.case.shapes.Projection."""
    found = []
    for name, layer in block.named_modules():
        if isinstance(layer, nn.Linear | Conv1D):
            conv1d = isinstance(layer, Conv1D)
            out_features, in_features = layer.weight.t().shape if conv1d else layer.weight.shape
            found.append(
                {
                    "name": name,
                    "in_features": in_features,
                    "out_features": out_features,
                    "bias": layer.bias is not None,
                    "conv1d": conv1d,
                }
            )
    return found


def count(module: nn.Module) -> int:
    """Parameters, a tied one once."""
    return sum(p.numel() for p in module.parameters())


def main(path: Path) -> int:
    try:
        if has := address_space():  # libraries map gigabytes that they do not touch
            bound_memory(has + MEMORY)
        print(dumps(describe(read_config(path))))
    except MemoryError:
        print(f"the modules alone, without any weights, take more than {MEMORY >> 30} GiB", file=sys.stderr)
        return 1
    except Exception as e:  # transformers raises whatever a config makes it run into
        print(f"{type(e).__name__}: {' '.join(str(e).split())}", file=sys.stderr)
        return 1
    return 0


def address_space() -> int:
    """Bytes that this process has mapped, libraries included; none where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("python -m bench.models.inspect PATH: give the path of one config.json")
    sys.exit(main(Path(sys.argv[1])))
