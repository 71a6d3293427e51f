"""One of two processes that train a small GPT-2 under DistributedDataParallel, gloo on the CPU.

python tests/peft/ddp_run.py RANK RENDEZVOUS_FILE OUT accelerated|peft
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from peft import LoraConfig
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]

from peft_models import VOCABULARY, gpt2, tune  # noqa: E402


def main(rank: int, rendezvous: str, out: str, accelerated: bool) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
    torch.manual_seed(0)
    lora = LoraConfig(target_modules="all-linear", r=4, fan_in_fan_out=True)
    model = DistributedDataParallel(tune(gpt2(), accelerated, lora))
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
    torch.save({"losses": torch.stack(losses), "gradients": gradients, "parameters": parameters}, out)
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4] == "accelerated")
