"""python -m bench train, from its flags to its exit status."""

import os
import signal
import sys
from collections.abc import Callable
from contextlib import nullcontext

from bench.again import to_go_on_training
from bench.errors import UserError
from bench.process import leave_to_starter, terminate_as_interrupt
from bench.terminal import print_path, say
from bench.train.folder import claim
from bench.train.plan import Plan, Request, make_plan
from bench.train.result import write_result

# The plan, what says a line, and what is called before anything is written.
TrainModel = Callable[[Plan, Callable[[str], None], Callable[[], None]], None]


def train(request: Request, train_model: TrainModel | None = None) -> int:
    """Trains, or goes on where the same request was cut off, and returns the exit status.

    Under torchrun every process calls this; process 0 alone writes and prints. train_model: what trains, by default
    transformers' Trainer. Raises UserError before anything is changed where the request cannot be carried out.
    """
    rank = int(os.environ.get("RANK", "0"))
    plan: Plan | None = None
    with terminate_as_interrupt() as came:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            leave_to_starter()
        try:
            plan = make_plan(request, rank, say if rank == 0 else _nothing)
            return _train(plan, train_model or _by_trainer)
        except UserError as e:
            if rank == 0:
                raise
            if plan:  # its own GPU or disk may be at fault; what is wrong with a request, process 0 says
                say(f"error: process {rank}: {e}")
            return 2
        except KeyboardInterrupt:
            if rank == 0:
                say(f"interrupted. To go on from the last checkpoint: {to_go_on_training()}")
            return 128 + (came[0] if came else signal.SIGINT)


def _train(plan: Plan, train_model: TrainModel) -> int:
    request = plan.request
    try:
        with claim(request.out, plan.settings, request.fresh) if plan.rank == 0 else nullcontext(_nothing) as begin:
            if plan.strategy.method != "none":
                train_model(plan, say if plan.rank == 0 else _nothing, begin)
            elif plan.rank == 0:
                begin()
                write_result(plan, {})
            if plan.rank == 0:
                print_path(request.out)
            if plan.world_size > 1:  # all is on disk; taking the process group down may hang (see bench/train/run.py)
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(0)
            return 0
    except OSError as e:
        where = f"{e.filename or request.out}: {e.strerror or e}"
        raise UserError(f"{where}. To go on from the last checkpoint: {to_go_on_training()}") from e


def _nothing(*_: object) -> None:
    """What the other processes of a run say and write."""


def _by_trainer(plan: Plan, say: Callable[[str], None], begin: Callable[[], None]) -> None:
    from bench.train.run import train_model  # imports torch and transformers

    train_model(plan, say, begin)
