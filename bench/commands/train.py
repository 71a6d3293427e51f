"""python -m bench train, from its flags to its exit status."""

import os
import sys
from collections.abc import Callable

from bench.errors import UserError
from bench.record.environment import command_to_go_on
from bench.terminal import say
from bench.train.folder import claim
from bench.train.plan import Plan, Request, make_plan
from bench.train.result import write_result

TrainModel = Callable[[Plan, Callable[[str], None]], None]


def train(request: Request, train_model: TrainModel | None = None) -> int:
    """Trains, or goes on where the same request was cut off, and returns the exit status.

    Under torchrun every process calls this; process 0 alone writes and prints. train_model: what trains, by default
    transformers' Trainer. Raises UserError before anything is changed where the request cannot be carried out.
    """
    rank = int(os.environ.get("RANK", "0"))
    plan: Plan | None = None
    try:
        plan = make_plan(request, rank)
        return _train(plan, train_model or _by_trainer)
    except UserError as e:
        if rank == 0:
            raise
        if plan:  # its own GPU or disk may be at fault; what is wrong with a request, process 0 says
            say(f"error: process {rank}: {e}")
        return 2
    except KeyboardInterrupt:
        if rank == 0:
            say(f"interrupted. To go on from the last checkpoint: {_again()}")
        return 130


def _train(plan: Plan, train_model: TrainModel) -> int:
    out = plan.request.out
    lock = claim(out, plan.settings, plan.request.fresh) if plan.rank == 0 else None
    try:
        if plan.strategy.method != "none":
            train_model(plan, say if plan.rank == 0 else lambda _: None)
        elif plan.rank == 0:
            write_result(plan, {})
        if plan.rank == 0:
            print(out)
        if plan.world_size > 1:  # all is on disk; taking the process group down may hang (see bench/train/run.py)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)
        return 0
    except OSError as e:
        raise UserError(f"{e.filename or out}: {e.strerror or e}. To go on from the last checkpoint: {_again()}") from e
    finally:
        if lock is not None:
            lock.release()


def _by_trainer(plan: Plan, say: Callable[[str], None]) -> None:
    from bench.train.run import train_model  # imports torch and transformers

    train_model(plan, say)


def _again() -> str:
    """The command that goes on: by as many processes, since a run of another number is another run."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return command_to_go_on()
    nodes, each = (os.environ.get(name, "1") for name in ("GROUP_WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    flags = "" if nodes == "1" else f"--nnodes {nodes} "
    return f"torchrun {flags}--nproc-per-node {each} {command_to_go_on().removeprefix('python ')}"
