"""One training run, in each of its processes: model, method, Trainer, result."""

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
import transformers
from torch.utils.tensorboard import SummaryWriter
from transformers import PrinterCallback, set_seed
from transformers.integrations import TensorBoardCallback

from bench.case.shapes import takes_turns
from bench.errors import UserError
from bench.train import checkpoint
from bench.train.board import write_board
from bench.train.folder import BOARD, CHECKPOINTS, METRICS, MODEL, RESULT
from bench.train.lisa import Lisa
from bench.train.load import load_checkpoint
from bench.train.metrics import PEAK_OF_GPU, PEAK_OF_PROCESS, Bar, Metrics, Stopwatch, read_metrics, training_time
from bench.train.plan import Plan, absolute
from bench.train.result import read_result, write_result
from bench.train.strategy import LISA_EVERY
from bench.train.tokens import collator, encode
from bench.train.trainable import make_trainable, save_trained, weights_dtype
from bench.train.trainer import PartTrainer, arguments


def train_model(plan: Plan, say: Callable[[str], None], begin: Callable[[], None]) -> None:
    """Trains to the end and writes model and train.json. Raises UserError where model and strategy do not fit.

    begin: is called in process 0 before anything is written.
    """
    strategy, out, seed = plan.strategy, plan.request.out, plan.request.seed
    transformers.utils.logging.set_verbosity_error()
    if plan.rank != 0:
        transformers.utils.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)  # PEFT asks for it
    set_seed(seed)
    options = arguments(
        strategy,
        out / CHECKPOINTS,
        seed=seed,
        checkpoint_every=plan.request.checkpoint_every,
        on_cpu=plan.on_cpu,
    )
    if _told_by_first(plan, lambda: not plan.request.fresh and _done(out)):
        say(f"{out}: trained already; --fresh trains anew")
        return
    source = absolute(plan.request.model)  # what is saved names it
    model, tokenizer = load_checkpoint(source, weights_dtype(strategy.precision))
    model.config.use_cache, caches = False, model.config.use_cache  # of use in inference alone
    length = min(strategy.length, getattr(model.config, "max_position_embeddings", None) or strategy.length)
    encoded = encode(plan.items, tokenizer, length, strategy.loss_on)
    if encoded.shortened:
        say(f"{encoded.shortened} of {len(plan.items)} examples exceed {length} tokens; they lose their beginning")
    try:
        model = make_trainable(model, strategy, seed, plan.impl, say, options.device, plan.request.save == "full")
    except torch.OutOfMemoryError as e:  # weights are quantised on the GPU
        raise _no_memory(e) from None
    except (ValueError, TypeError) as e:
        raise UserError(f"strategy {plan.name} does not fit {plan.request.model}: {e}") from e
    resumed = _told_by_first(plan, lambda: _start(plan, say, begin))
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id or 0
    per_step = strategy.batch * strategy.accumulation * plan.world_size
    watch = Stopwatch(resumed.elapsed_s if resumed else 0.0)
    metrics = Metrics(out / METRICS, watch, len(plan.items), per_step, resumed.step if resumed else 0)
    steps = strategy.epochs * -(-len(plan.items) // per_step)
    if steps <= strategy.warmup_steps:
        say(
            f"{steps} steps in all and {strategy.warmup_steps} of warm-up: the learning rate never gets to its value."
            " --warmup-steps, or warmup_steps in a strategy file, takes fewer"
        )
    what = strategy.description or plan.name
    say(f"{what}: {_count(model):,} trained values, {len(plan.items)} examples, {steps} steps")
    bar = Bar()
    layers, every = strategy.trainable_layers, strategy.lisa_every or LISA_EVERY
    turns = [Lisa(model, layers, every)] if takes_turns(layers) else []
    try:
        trainer = PartTrainer(  # moves the model to its device
            watch,
            model=model,
            args=options,
            train_dataset=encoded.examples,
            data_collator=collator(pad_id, length),
            callbacks=[metrics, bar, *turns],
        )
        trainer.remove_callback(PrinterCallback)
        if plan.rank == 0:
            if not resumed:
                shutil.rmtree(out / BOARD, ignore_errors=True)  # of a part that was cut off before its first checkpoint
            writer = SummaryWriter(str(out / BOARD), purge_step=resumed.step + 1 if resumed else None)
            trainer.add_callback(TensorBoardCallback(writer))
        if not plan.on_cpu:
            torch.cuda.reset_peak_memory_stats()
        watch.start()
        trainer.train(resume_from_checkpoint=str(resumed.path) if resumed else None)
    except torch.OutOfMemoryError as e:
        raise _no_memory(e) from None
    finally:
        bar.close()
    elapsed = watch.elapsed_s
    model.config.use_cache = caches
    if plan.rank == 0:
        _finish(plan, trainer, tokenizer, elapsed)
        say(f"trained in {training_time(elapsed)}")
    trainer.accelerator.end_training()
    if plan.world_size > 1:
        _kept.append(trainer)


# Under torchrun a trainer is kept to the end of its process: torch 2.13 frees its gloo group while holding Python's
# lock, which the group's own thread may be waiting for, and so hangs now and then with everything done.
_kept: list[PartTrainer] = []


T = TypeVar("T")


def _no_memory(e: Exception) -> UserError:
    return UserError(
        f"out of GPU memory ({str(e).splitlines()[0]}). Pass --precision bf16, a smaller --batch with a larger"
        " --accumulation, or a strategy file with gradient_checkpointing: true or method qlora; with --fresh"
    )


def _told_by_first(plan: Plan, look: Callable[[], T]) -> T:
    """What process 0 finds. It tells the others, which may see the folder as it was before."""
    found: list[Any] = [look() if plan.rank == 0 else None]
    if plan.world_size > 1:
        dist.broadcast_object_list(found)
    answer: T = found[0]
    return answer


def _done(out: Path) -> bool:
    """Raises UserError where train.json is there and damaged."""
    return (out / RESULT).is_file() and bool(read_result(out))


def _start(plan: Plan, say: Callable[[str], None], begin: Callable[[], None]) -> checkpoint.Checkpoint | None:
    """Where training goes on."""
    begin()
    folder = plan.request.out / CHECKPOINTS
    for name in checkpoint.drop_torn(folder):
        say(f"{folder / name}: torn; dropped")
    newest = checkpoint.newest(folder)
    if newest:
        checkpoint.check_state(newest)
        say(f"going on after step {newest.step}, {training_time(newest.elapsed_s)} into the training")
    return newest


def _count(model: Any) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def _finish(plan: Plan, trainer: PartTrainer, tokenizer: Any, elapsed: float) -> None:
    out = plan.request.out
    metrics = read_metrics(out / METRICS)
    losses, tokens, peaks, rates = (
        [m[key] for m in metrics if m.get(key) is not None] for key in ("loss", "tokens", "peak_mib", "learning_rate")
    )
    counted = sum(tokens) if len(tokens) == trainer.state.global_step else None
    last = losses[-max(1, len(losses) // 10) :]
    elapsed = round(elapsed, 3)
    told = {
        "steps": trainer.state.global_step,
        "wall_s": elapsed,
        "training_time": training_time(elapsed),
        "final_loss": sum(last) / len(last) if last else None,  # mean over the last tenth of the steps
        "highest_learning_rate": max(rates, default=None),
        "tokens": counted,
        "tokens_per_s": counted / elapsed if counted and elapsed else None,
        "peak_mib": max(peaks, default=None),
        "peak_of": PEAK_OF_PROCESS if plan.on_cpu else PEAK_OF_GPU,
        "gpu": None if plan.on_cpu else torch.cuda.get_device_name(),
        "trainable_params": _count(trainer.model),
    }
    save_trained(trainer.model, plan.strategy, tokenizer, out / MODEL, plan.request.save == "full")
    write_result(plan, told)
    write_board(out)
    shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)
