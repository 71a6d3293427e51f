"""The command that was given, and the commands that follow from it, as a person pastes them."""

import os
import re
import shlex
import sys
from collections.abc import Iterator, Sequence

from bench.errors import shell_line

# What says which cases: the sweep or the model, the device, and what narrows them.
_CASES = (
    "", "--gpu", "--where", "--model", "--batch", "--seq", "--rank", "--targets", "--dropout", "--precision",
    "--trainable-layers", "--method", "--impl", "--level",
)  # fmt: skip
# Options without a value; what follows any other is its value, whatever that looks like.
FLAGS = (
    "--fresh",
    "--strict",
    "--fail-on-slower",
    "--as-campaign",
    "--trace",
    "--check",
    "--exclusive",
    "--once",
    "--cancel",
)
_BYTES = re.compile(r"(?<!\S)\$'((?:[^'\\]|\\x[0-9a-f]{2})*)'(?!\S)")  # a word as shell_line writes one that is no text


def command_line() -> str:
    """The command as a person would type it again."""
    return _python(sys.argv[1:])


def to_go_on() -> str:
    """The command that goes on where this one was cut off: without --fresh, which would start anew."""
    return _python(_without(sys.argv[1:], "--fresh"))


def to_go_on_with(stages: Sequence[str]) -> str:
    """The same for a campaign, with these stages."""
    return _python([*_without(sys.argv[1:], "--fresh", "--stages"), "--stages", ",".join(stages)])


def to_go_on_training() -> str:
    """The same for a training run: by as many processes, since a run of another number is another run."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return to_go_on()
    nodes, each = (os.environ.get(name, "1") for name in ("GROUP_WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    several = [] if nodes == "1" else ["--nnodes", nodes]
    rest = _without(sys.argv[1:], "--fresh")
    return shell_line(["torchrun", *several, "--nproc-per-node", each, "-m", "bench", *rest])


def to_retry(statuses: Sequence[str]) -> str:
    """The command that measures rows with these statuses again, into the same folder and in the same way."""
    return _retry(sys.argv[1:], statuses)


def recorded(command: str, statuses: Sequence[str]) -> tuple[str, str]:
    """A command line as a record has it, and the one that measures rows with these statuses again. Whatever a stranger
    put there is a word of an argument: nothing of it is run when the line is pasted. Two empty texts for anything but
    `python -m bench` and what follows."""
    try:
        words = shlex.split(_BYTES.sub(_quoted, command))
    except ValueError:
        words = []
    if words[:3] != ["python", "-m", "bench"]:
        return "", ""
    return _python(words[3:]), _retry(words[3:], statuses)


def _quoted(found: re.Match[str]) -> str:
    escapes = re.sub(rb"\\x(..)", lambda e: bytes.fromhex(e[1].decode()), found[1].encode())
    return shlex.quote(os.fsdecode(escapes))


def to_list() -> str:
    """The command that lists the cases of a run."""
    parts = _parts(sys.argv[1:])
    return _python(["list", *(w for option, words in parts for w in words if option in _CASES)])


def _retry(given: Sequence[str], statuses: Sequence[str]) -> str:
    kept = [words for option, words in _parts(given) if option not in ("--fresh", "--retry")]
    behind = kept[-1:] if kept and kept[-1][0] == "--" else []  # there nothing is an option
    kept = [*kept[: len(kept) - len(behind)], ["--retry", ",".join(statuses)], *behind]
    return _python([*(given[:1] or ["run"]), *(w for words in kept for w in words)])


def given(*options: str) -> str | None:
    """The value that an option was given, the last one where it was given several times; None where it was not."""
    found = [words for option, words in _parts(sys.argv[1:]) if option in options]
    return None if not found else found[-1][1] if len(found[-1]) > 1 else found[-1][0].partition("=")[2]


def _python(words: Sequence[str]) -> str:
    return shell_line(["python", "-m", "bench", *words])


def _without(given: Sequence[str], *options: str) -> list[str]:
    return [*given[:1], *(w for option, words in _parts(given) for w in words if option not in options)]


def _parts(given: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """What was given to the subcommand, option by option, each with its value; '' for what is none."""
    left = iter(given[1:])
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
