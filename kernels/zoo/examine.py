"""One architecture in this process: built, tried with accelerate() and with paca()."""

import os
import signal
import sys
import time
import warnings
from multiprocessing.connection import Connection
from pathlib import Path

import torch
import transformers

# Common parts of most architectures, imported once before processes are forked: they are most of a start's time.
import transformers.models.clip.modeling_clip
import transformers.models.llama.modeling_llama

from .build import NotBuilt, specimen
from .row import Row
from .trial_paca import try_paca
from .trial_peft import try_accelerate


def examine(name: str, connection: Connection) -> None:
    """Sends the stages through the connection as it enters them, as strings, and at last the Row.

    Runs in a process of its own, whose output goes nowhere: transformers has much to say about tiny models.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends it
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
        os.dup2(nowhere.fileno(), sys.stderr.fileno())
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    begin = time.perf_counter()
    connection.send("build")
    try:
        found = specimen(name)
    except NotBuilt as error:
        connection.send(Row(name, reason=str(error), seconds=time.perf_counter() - begin))
        return
    connection.send("accelerate")
    accelerated = try_accelerate(found)
    connection.send("paca")
    adapted = try_paca(found)
    connection.send(
        Row(
            name,
            found.model_class.__name__,
            tuple(key for key in found.inputs if key != "use_cache"),
            accelerated,
            adapted,
            seconds=time.perf_counter() - begin,
        )
    )
