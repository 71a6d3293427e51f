"""What each documented `python -m bench ...` must do here."""

from collections.abc import Callable
from typing import Any

import typer

from bench.cli import app
from bench.commands.advise.request import bytes_of, count_of, number_of
from bench.commands.cluster.request import request_of
from bench.devices import choose_any, gpus
from bench.terminal import seconds_of
from tests.conftest import ROOT
from tests.documented.place import Place

BENCH = typer.main.get_command(app).commands
HUB_ID, NAMED = "Qwen/Qwen3-8B", "qwen3-8b"  # what the pages name, and the same without the network


def parsed(name: str, arguments: list[str]) -> dict[str, Any]:
    """The options as a command's own parser understands them. A quoted name alone is only looked up."""
    assert name in BENCH, f"python -m bench has no command {name}"
    return BENCH[name].make_context(name, list(arguments)).params if arguments else {}


def as_it_stands(place: Place, arguments: list[str]) -> None:
    parsed(arguments[0], arguments[1:])
    if len(arguments) == 1 and arguments[0] not in ("doctor", "list"):
        return
    done = place.cli(*(NAMED if a == HUB_ID else a for a in place.put(arguments)))
    assert done.returncode == 0 or arguments == ["doctor"], done.stderr
    assert done.stdout


def its_cases(place: Place, arguments: list[str]) -> None:
    """What it would measure is listed; and a GPU that is not here is refused by name."""
    options = parsed(arguments[0], arguments[1:])
    if options.get("on"):
        flags = ("on", "array", "partition", "gres", "exclusive", "slurm", "python")
        assert request_of(*(tuple(v) if isinstance(v := options[f], list) else v for f in flags))
        choose_any(options["gpu"], [])
    elif options.get("gpu", "auto") != "auto" and not gpus():
        done = place.cli(*arguments)
        assert done.returncode == 2 and "Found: no NVIDIA GPU" in done.stderr, done.stderr
    if options:
        listed(options)


def listed(options: dict[str, Any]) -> None:
    """`python -m bench list` accepts the cases that these options ask for."""
    known = [p.name for p in BENCH["list"].params]
    options = options | {"gpu": "auto", "model": NAMED if options["model"] == HUB_ID else options["model"]}
    BENCH["list"].callback(**{name: options[name] for name in known if name in options})


def advised(place: Place, arguments: list[str]) -> None:
    """The cases that it would measure are listed, and its own options are understood."""
    options = parsed(arguments[0], arguments[1:])
    if options:
        listed(options | {"sweep": "advise"})
        assert seconds_of("--time", options["time"]) > 0
        assert options["memory"] is None or bytes_of("--memory", options["memory"]) > 0
        assert options["price"] is None or number_of("--price", options["price"], "price") > 0
        assert options["trained"] is None or count_of("--trained", options["trained"]) > 0


def predicted(place: Place, arguments: list[str]) -> None:
    """The boards, host and clock are taken for a small sweep."""
    options = parsed(arguments[0], arguments[1:])
    if not options.get("check"):
        place.predict(options["gpu"], "out", *(["--clock", options["clock"]] if options["clock"] else []))
        assert (place.folder / "out" / "predictions.csv").is_file()


def needs_a_gpu(place: Place, arguments: list[str]) -> None:
    parsed(arguments[0], arguments[1:])
    if not gpus():
        done = place.cli(*arguments)
        assert done.returncode == 2 and "NVIDIA GPU" in done.stderr


def only_parsed(place: Place, arguments: list[str]) -> None:
    """Minutes, or the network: the tests of these commands run them at a smaller size."""
    options = parsed(arguments[0], arguments[1:])
    if time := options.get("time"):
        assert seconds_of("--time", time) > 0
    if (strategy := options.get("strategy")) and "$" not in strategy:
        assert (ROOT / "bench" / "train" / "strategies" / f"{strategy}.yaml").is_file()


def compared(place: Place, arguments: list[str]) -> None:
    if "--run" in arguments:
        only_parsed(place, arguments)
    else:
        as_it_stands(place, arguments)


def explained(place: Place, arguments: list[str]) -> None:
    if "--trace" in arguments:  # profiles each case anew
        only_parsed(place, arguments)
    else:
        as_it_stands(place, arguments)


def version(place: Place, arguments: list[str]) -> None:
    done = place.cli(*arguments)
    assert done.returncode == 0 and "torch" in done.stdout


SUBCOMMANDS: dict[str, Callable[[Place, list[str]], None]] = {
    "run": its_cases,
    "list": as_it_stands,
    "doctor": as_it_stands,
    "spread": as_it_stands,
    "compare": compared,
    "merge": only_parsed,
    "status": only_parsed,
    "why": explained,
    "predict": predicted,
    "precompile": needs_a_gpu,
    "cross-check": needs_a_gpu,
    "campaign": only_parsed,
    "train": only_parsed,
    "evaluate": only_parsed,
    "advise": advised,
    "--version": version,
}
