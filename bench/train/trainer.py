"""transformers' Trainer with checkpoints of what trains alone, complete or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import Trainer, TrainingArguments

from bench.errors import UserError
from bench.train import checkpoint
from bench.train.metrics import Stopwatch, peak_mib
from bench.train.strategy import Strategy
from bench.train.trainable import autocast_dtype, carried
from bench.train.weights import reason
from kernels import PaCALinear

_TRAINED = "trained.safetensors"

# transformers' name of each; its SGD has no momentum.
_OPTIMIZERS = {
    "adamw": "adamw_torch",
    "adamw-8bit": "adamw_bnb_8bit",
    "paged-adamw": "paged_adamw_32bit",
    "paged-adamw-8bit": "paged_adamw_8bit",
    "sgd": "sgd",
}


class PartTrainer(Trainer):
    """Saves and loads what `carried` names alone: the frozen rest is the model's, and may be many gigabytes."""

    def __init__(self, watch: Stopwatch, **options: Any) -> None:
        super().__init__(**options)
        self._watch = watch
        self._carried = carried(self.model)  # before a callback freezes some of it for a while
        self._tokens: Any = torch.zeros((), dtype=torch.int64)

    def get_batch_samples(self, *arguments: Any) -> Any:
        """Trainer's place for taking a step's batches. Counts their tokens where they lie, so that nobody waits for the
        number before the loss is waited for."""
        batches, items = super().get_batch_samples(*arguments)
        if batches:
            self._tokens = torch.stack([b["attention_mask"].sum() for b in batches]).sum()
        return batches, items

    def log(self, logs: dict[str, Any], start_time: float | None = None) -> None:
        """Adds to what is logged of a step: step_s, tokens (without padding; of all processes), tokens_per_s and
        peak_mib."""
        if "loss" in logs:
            tokens = int(self.accelerator.reduce(self._tokens))
            seconds, peak = self._watch.lap(), peak_mib(self.args.use_cpu)
            logs |= {"step_s": seconds, "tokens": tokens}
            logs |= {"tokens_per_s": tokens / seconds} if seconds > 0 else {}
            logs |= {"peak_mib": peak} if peak else {}
        super().log(logs, start_time)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Trainer's place for writing the model into a checkpoint; only process 0 comes here."""
        assert output_dir is not None
        Path(output_dir).mkdir(parents=True, exist_ok=True)
        values = {name: p.detach().cpu().contiguous() for name, p in self._carried.items()}
        save_file(values, str(Path(output_dir) / _TRAINED))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Trainer's place for reading it back, in every process."""
        with _told(resume_from_checkpoint):
            load_trained(self.model, self._carried, Path(resume_from_checkpoint) / _TRAINED)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        with _told(checkpoint):
            super()._load_optimizer_and_scheduler(checkpoint)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        with _told(checkpoint):
            super()._load_rng_state(checkpoint)

    def _load_scaler(self, checkpoint: str | None) -> None:
        with _told(checkpoint):
            super()._load_scaler(checkpoint)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()  # each process writes its own random state
        if self.is_world_process_zero():
            assert self.args.output_dir is not None
            step = self.state.global_step
            checkpoint.complete(Path(self.args.output_dir) / f"checkpoint-{step}", step, self._watch.elapsed_s)


@contextmanager
def _told(path: str | None) -> Iterator[None]:
    """Whatever a file of a checkpoint runs into while it is read becomes a sentence. torch reads them without running
    what a pickle would have it run."""
    try:
        yield
    except Exception as e:
        raise UserError(f"{path}: cannot be loaded ({reason(e)}). {checkpoint.ADVICE}") from e


@torch.no_grad()
def load_trained(model: Any, trained: dict[str, nn.Parameter], path: Path) -> None:
    """Puts the values of a checkpoint into these parameters of the model. Raises ValueError where they do not fit."""
    values = load_file(str(path))
    if values.keys() != trained.keys():
        raise ValueError(f"{path}: {min(values.keys() ^ trained.keys())} is on one side only")
    for name, parameter in trained.items():
        for what, found, expected in (
            ("shape", tuple(values[name].shape), tuple(parameter.shape)),
            ("dtype", values[name].dtype, parameter.dtype),
        ):
            if found != expected:
                raise ValueError(f"{path}: {name} has {what} {found}, expected {expected}")
    for name, parameter in trained.items():
        parameter.copy_(values[name])
    for module in model.modules():
        if isinstance(module, PaCALinear):
            module.refresh()


def arguments(
    strategy: Strategy, checkpoints: Path, *, seed: int, checkpoint_every: int, on_cpu: bool
) -> TrainingArguments:
    """The schedule of a strategy as Trainer's arguments; in every other respect as Trainer has it."""
    autocast = autocast_dtype(strategy)
    assert strategy.learning_rate is not None
    options = TrainingArguments(
        output_dir=str(checkpoints),
        per_device_train_batch_size=strategy.batch,
        gradient_accumulation_steps=strategy.accumulation,
        num_train_epochs=strategy.epochs,
        learning_rate=strategy.learning_rate,
        weight_decay=strategy.weight_decay,
        max_grad_norm=strategy.max_grad_norm,
        lr_scheduler_type=strategy.schedule,
        warmup_steps=strategy.warmup_steps,
        optim=_OPTIMIZERS[strategy.optimizer],
        fp16=autocast == "fp16",
        bf16=autocast == "bf16",
        seed=seed,
        use_cpu=on_cpu,
        ddp_backend="gloo" if on_cpu and int(os.environ.get("WORLD_SIZE", "1")) > 1 else None,
        ddp_find_unused_parameters=False,
        ddp_broadcast_buffers=False,  # none changes
        # Every step: a resumed run then has the same loss curve wherever it was cut off. One read of the loss a step.
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=checkpoint_every,
        save_total_limit=2,
        remove_unused_columns=False,
        report_to="none",
        disable_tqdm=True,
    )
    # Several GPUs work by torchrun. Trainer's own default, one process that copies the model to all of them in every
    # step, would multiply the strategy's batch.
    options._n_gpu = min(options.n_gpu, 1)
    return options
