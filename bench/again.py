"""The command that was given, and the commands that follow from it, as a person pastes them."""

import os
import sys
from collections.abc import Iterator, Sequence

from bench.errors import shell_line

# Options without a value; what follows any other is its value, whatever that looks like.
FLAGS = ("--fresh", "--strict", "--fail-on-slower")


def command_line() -> str:
    """The command as a person would type it again."""
    return _python(sys.argv[1:])


def to_go_on() -> str:
    """The command that goes on where this one was cut off: without --fresh, which would start anew."""
    return _python(_without("--fresh"))


def to_go_on_training() -> str:
    """The same for a training run: by as many processes, since a run of another number is another run."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return to_go_on()
    nodes, each = (os.environ.get(name, "1") for name in ("GROUP_WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    several = [] if nodes == "1" else ["--nnodes", nodes]
    return shell_line(["torchrun", *several, "--nproc-per-node", each, "-m", "bench", *_without("--fresh")])


def to_retry(statuses: Sequence[str]) -> str:
    """The command that measures rows with these statuses again, into the same folder and in the same way."""
    name, *rest = _without("--fresh", "--retry") or ["run"]
    return _python([name, "--retry", ",".join(statuses), *rest])


def to_list() -> str:
    """The command that lists the cases of a run."""
    return _python(["list", *(w for option, words in _parts() for w in words if option in ("", "--gpu", "--where"))])


def _python(words: Sequence[str]) -> str:
    return shell_line(["python", "-m", "bench", *words])


def _without(*options: str) -> list[str]:
    return [*sys.argv[1:2], *(w for option, words in _parts() for w in words if option not in options)]


def _parts() -> Iterator[tuple[str, list[str]]]:
    """What was given to the subcommand, option by option, each with its value; '' for what is none."""
    left = iter(sys.argv[2:])
    for word in left:
        option, equals, _ = word.partition("=")
        if word == "--":
            yield "", [word, *left]
        elif word == "-" or not word.startswith("-"):
            yield "", [word]
        elif equals or word in FLAGS:
            yield option, [word]
        else:
            yield option, [word, *[v for v in (next(left, None),) if v is not None]]
