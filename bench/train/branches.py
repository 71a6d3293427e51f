"""The methods that PEFT computes: LoRA and its kin, with what makes each of them."""

from collections.abc import Callable, Sequence
from typing import Any

from bench.train.strategy import Strategy

METHODS = ("lora", "dora", "lora-fa", "qlora")
FUSED = ("lora", "dora", "lora-fa")  # of which this project's kernels can take the layers


def put_branches(
    model: Any,
    strategy: Strategy,
    targets: list[str],
    blocks: Sequence[int] | None,
    pattern: str,
    impl: str,
    say: Callable[[str], None],
) -> Any:
    """PEFT's model: branches in fp32 beside the linear layers called `targets` of those blocks, or of all.

    pattern: what the list of blocks is called in the model. LoRA-FA's A, which its seed drew, is frozen, so that a
    checkpoint has to hold it beside what trains (see `carried`).
    """
    from peft import LoraConfig, get_peft_model

    assert strategy.rank is not None and strategy.alpha is not None
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=strategy.rank,
        lora_alpha=strategy.alpha,  # type: ignore[arg-type]  # PEFT divides it by r: no need of an int
        lora_dropout=strategy.dropout,
        target_modules=targets,
        layers_to_transform=None if blocks is None else list(blocks),
        layers_pattern=None if blocks is None else pattern,
        fan_in_fan_out=any(type(m).__name__ == "Conv1D" for m in model.modules()),
        use_rslora=strategy.scaling == "rslora",
        use_dora=strategy.method == "dora",
    )
    tuned = get_peft_model(model, config)
    if strategy.method == "lora-fa":
        for name, parameter in tuned.named_parameters():
            if ".lora_A." in name:
                parameter.requires_grad_(False)
    if impl == "triton":
        from kernels.peft import accelerate

        say(str(accelerate(tuned)))
    return tuned
