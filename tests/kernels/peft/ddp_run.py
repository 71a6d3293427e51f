"""One of two processes that train a small GPT-2 under DistributedDataParallel, gloo on the CPU.

torchrun --standalone --nproc-per-node 2 tests/kernels/peft/ddp_run.py FOLDER accelerated|peft
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from peft import LoraConfig
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.kernels.peft.peft_models import VOCABULARY, gpt2, tune


def main(folder: Path, which: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo")
    rank = distributed.get_rank()
    torch.manual_seed(0)
    lora = LoraConfig(target_modules="all-linear", r=4, fan_in_fan_out=True)
    model = DistributedDataParallel(tune(gpt2(), which == "accelerated", lora))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    data = torch.Generator().manual_seed(rank)  # every rank has its own
    losses, gradients = [], {}
    for _ in range(5):
        ids = torch.randint(VOCABULARY, (4, 12), generator=data)
        optimizer.zero_grad()
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        optimizer.step()
        losses.append(loss.detach())
    parameters = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    torch.save(
        {"losses": torch.stack(losses), "gradients": gradients, "parameters": parameters}, folder / f"{which}-{rank}.pt"
    )
    distributed.barrier()
    os._exit(0)  # everything is on disk; taking gloo down hung now and then


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
