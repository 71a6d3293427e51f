"""python -m bench train, from its flags to its exit status."""

import os
import sys

from bench.errors import UserError
from bench.finetune.folder import claim
from bench.finetune.plan import Plan, Request, make_plan
from bench.finetune.result import write_result
from bench.run.environment import command_line


def train(request: Request) -> int:
    """Trains, or goes on where the same request was cut off, and returns the exit status.

    Under torchrun every process calls this; process 0 alone writes and prints. Raises UserError before anything is
    changed where the request cannot be carried out.
    """
    rank = int(os.environ.get("RANK", "0"))
    try:
        return _train(make_plan(request, rank))
    except UserError:
        if rank == 0:
            raise
        return 2  # process 0 says why
    except KeyboardInterrupt:
        if rank == 0:
            _say(f"interrupted. To go on from the last checkpoint: {command_line()}")
        return 130


def _train(plan: Plan) -> int:
    out = plan.request.out
    lock = claim(out, plan.settings, plan.request.fresh) if plan.rank == 0 else None
    try:
        if plan.strategy.method != "none":
            from bench.finetune.run import train_model

            train_model(plan, _say if plan.rank == 0 else lambda _: None)
        elif plan.rank == 0:
            write_result(plan, {})
        if plan.rank == 0:
            print(out)
        return 0
    except OSError as e:
        raise UserError(
            f"{e.filename or out}: {e.strerror or e}. To go on from the last checkpoint: {command_line()}"
        ) from e
    finally:
        if lock is not None:
            os.close(lock)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
