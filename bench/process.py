"""What a command needs before anything else, as a process among others: three open descriptors, output that no reader
makes it fail by, and signals that end it in one line. It takes nothing but the standard library, and little of that."""

import atexit
import io
import os
import select
import signal
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Timer
from time import monotonic
from typing import Any, NoReturn, TextIO

# Ctrl-C, kill, a terminal that is closed, and Ctrl-\; Windows lacks the last two.
ENDING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT") if hasattr(signal, name)]
AGAIN_S = 30.0  # in which an interrupted command puts its files in order, and hears no second signal


def begin() -> None:
    """Call this first in a process, before anything opens a file, and once."""
    _open_closed_descriptors()
    streams = sys.stdin or open(0, closefd=False), _output(1, sys.stdout), _output(2, sys.stderr)  # noqa: SIM115
    for name, stream in zip(("stdin", "stdout", "stderr"), streams, strict=True):
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    for number in _heeded():
        signal.signal(number, _end)
    atexit.register(_finish)  # as the first, so that it is called as the last


def _open_closed_descriptors() -> None:
    """Whoever starts us may have closed 0, 1 or 2. A file or pipe of ours must not get such a number: libraries and
    started processes would read and write there."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free, and that is this one
            os.set_inheritable(null, True)


class Output(io.FileIO):
    """Standard output or error. Writing to it never raises.

    Where the reader has gone, behind a closed pipe or a terminal that hung up, all that follows goes to /dev/null. Any
    other failure, as a full disk is one, is kept in `failed`: the command judges whether it matters.
    """

    failed: OSError | None = None

    def write(self, data: Any) -> int:
        """All of it, also where somebody made the pipe one that does not block."""
        left = memoryview(data).cast("B")
        size = len(left)
        try:
            while left:
                written: int | None = super().write(left)
                if written is None:
                    select.select([], [self], [])
                else:
                    left = left[written:]
        except OSError as e:
            self._judge(e)
        return size

    def _judge(self, e: OSError) -> None:
        hung_up = e.errno == 5 and stat.S_ISCHR(os.fstat(self.fileno()).st_mode)  # EIO
        if isinstance(e, ConnectionError) or hung_up:
            with suppress(OSError):
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, self.fileno())
                os.close(null)
        elif self.failed is None:
            self.failed = e


def _output(number: int, before: TextIO | None) -> TextIO:
    raw = Output(number, "w", closefd=False)
    raw.name = ("<stdout>", "<stderr>")[number - 1]
    at_once = number == 2 or getattr(before, "line_buffering", False) or getattr(before, "write_through", False)
    encoding = getattr(before, "encoding", None) or "utf-8"
    # A sign that the encoding lacks is no reason to stop.
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding, "backslashreplace", line_buffering=at_once)


def output_failure(spare: bool = False) -> OSError | None:
    """Why standard output could not take what was printed; None where it could, and where its reader has gone.

    spare: what was printed so far stands on disk too, and its failure is forgotten.
    """
    sys.stdout.flush()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    if not isinstance(raw, Output):
        return None
    failed = raw.failed
    if spare:
        raw.failed = None
    return failed


def _heeded() -> list[int]:
    """The signals that end a command: not those that whoever started it had it ignore, as nohup does. But SIGTERM
    always: by it a command hears that its starter has died."""
    ignored = (signal.SIG_IGN, None)
    return [n for n in ENDING if n == signal.SIGTERM or signal.getsignal(n) not in ignored]


def _finish() -> None:
    """Nothing is left but Python's own end, at which it would give signals back their way to kill: the exit status is
    what it is."""
    for number in _heeded():
        signal.signal(number, signal.SIG_IGN)


def leave_to_starter() -> None:
    """For one process of several, which torchrun ends: by the system's way, which does not wait for Python's turn, as
    where the process hangs in a collective operation."""
    for number in set(ENDING) - {signal.SIGINT}:
        signal.signal(number, signal.SIG_DFL)


def _end(number: int, _frame: object) -> NoReturn:
    """Ends the process on the spot: wherever there is something to put in order, terminate_as_interrupt stands."""
    with suppress(OSError):
        os.write(2, f"interrupted by {signal.Signals(number).name}\n".encode())
    os._exit(128 + number)


def bound_memory(most: int) -> None:
    """Lets this process have at most so many bytes of address space, or fewer where it may not have them; no limit
    where the system has none."""
    try:
        import resource
    except ImportError:
        return
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


@contextmanager
def terminate_as_interrupt() -> Iterator[list[int]]:
    """Whatever ends a command raises KeyboardInterrupt, as Ctrl-C does, and once: what puts the files in order then is
    left in peace for AGAIN_S. The list holds the signal's number. A KeyboardInterrupt that gets out of here ends the
    command in one line, with exit status 128 + the number.
    """
    came: list[int] = []
    last = 0.0
    over = False
    hook = sys.unraisablehook

    def lost(found: Any) -> None:
        """Python drops what is raised in a destructor or a callback of the import system: the signal comes again."""
        if not isinstance(found.exc_value, KeyboardInterrupt):
            hook(found)
        elif came:
            number = came[0]
            came.clear()
            Timer(0.05, os.kill, (os.getpid(), number)).start()

    def handler(number: int, frame: object) -> None:
        nonlocal last
        if over:
            _end(number, frame)
        if not came or monotonic() - last > AGAIN_S:
            last = monotonic()
            came.append(number)
            raise KeyboardInterrupt

    before: dict[int, Any] = {}
    try:
        for number in _heeded():
            before[number] = signal.signal(number, handler)
        sys.unraisablehook = lost
        yield came
    except KeyboardInterrupt:
        number = came[0] if came else int(signal.SIGINT)
        print(f"interrupted by {signal.Signals(number).name}", file=sys.stderr, flush=True)
        raise SystemExit(128 + number) from None
    finally:
        over = True
        sys.unraisablehook = hook
        for number, handled in before.items():
            signal.signal(number, handled)
