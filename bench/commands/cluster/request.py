"""What `run --on` is asked for, from its flags."""

import re
from dataclasses import dataclass

from bench.cluster.slurm import OURS
from bench.errors import UserError, one_of, short

BACKENDS = ("slurm", "local")
MOST_SHARDS = 1000  # Slurm's own MaxArraySize is 1001 unless a site raises it
NOT_GIVEN = {name.replace("_", "-") for name in OURS} | {"no-requeue"}


@dataclass(frozen=True)
class Request:
    """Where a sweep is measured."""

    backend: str
    shards: int | None  # None: by how long they take
    at_most: int | None  # jobs at once
    partition: str | None
    python: str | None
    sbatch: dict[str, str | bool]


def request_of(
    on: str | None,
    array: str | None,
    partition: str | None,
    gres: str | None,
    exclusive: bool,
    slurm: tuple[str, ...],
    python: str | None,
) -> Request | None:
    """None without --on. Raises UserError, which names the flag."""
    of_slurm = {"--array": array, "--partition": partition, "--gres": gres, "--exclusive": exclusive, "--slurm": slurm}
    given = [flag for flag, value in of_slurm.items() if value]
    if on is None:
        if given or python:
            raise UserError(f"{(given or ['--python'])[0]}: this goes with --on slurm. Add that, or leave it out.")
        return None
    if on not in BACKENDS:
        raise UserError(one_of("--on", on, BACKENDS))
    if on == "local" and given:
        raise UserError(f"{given[0]}: this goes with --on slurm. --on local has one shard for each GPU.")
    sbatch = dict(_option(text) for text in slurm)
    for name, value in (("partition", partition), ("gres", gres), ("exclusive", exclusive)):
        if value and name in sbatch:
            raise UserError(f"--{name}: given a second time by --slurm {name}. Give one of them.")
    sbatch |= {"gres": gres} if gres else {}
    sbatch |= {"exclusive": True} if exclusive else {}
    shards, at_most = _array(array)
    return Request(on, shards, at_most, partition or _text(sbatch.pop("partition", None)), python, sbatch)


def _text(value: str | bool | None) -> str | None:
    return value if isinstance(value, str) else None


def _array(text: str | None) -> tuple[int | None, int | None]:
    if text is None:
        return None, None
    found = re.fullmatch(r"([0-9]{1,9})(?:%([0-9]{1,9}))?", text)
    shards, at_most = (int(found[1]), int(found[2]) if found[2] else None) if found else (0, None)
    if not 1 <= shards <= MOST_SHARDS or at_most == 0:
        raise UserError(
            f"--array {short(text)}: give how many shards there are, from 1 to {MOST_SHARDS}, and behind % how many run"
            " at once: 16, or 64%8."
        )
    return shards, at_most


def _option(text: str) -> tuple[str, str | bool]:
    name, equals, value = text.removeprefix("--").partition("=")
    if not re.fullmatch(r"[a-z][a-z-]{0,39}", name) or (equals and not value) or not value.isprintable():
        raise UserError(
            f"--slurm {short(text)}: give an option of sbatch as key=value, such as account=physics or time=4:00:00, or"
            " one without a value by its name."
        )
    if name in NOT_GIVEN:
        raise UserError(f"--slurm {short(text)}: {name} is set here. Give any other option of sbatch.")
    return name, value if equals else True
