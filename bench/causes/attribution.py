"""From one profiled call to the time, launches, bytes and FLOPs of each cause. Plain records; no torch.

Two lists meet here. The roles: every operator that the dispatcher called in the same work, with the cause that it
serves, in order. The events: what the profiler timed, nested as it ran. An operator may call others, and composite ones
(aten::linear) appear to the profiler alone: so an event takes the role of the operator of its name, what runs inside of
an operator counts as it, and what is around it as the first operator within that does something.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

PHASES = {
    "forward": ("forward",),
    "backward": ("backward",),
    "forward-backward": ("forward", "backward"),
    "step": ("forward", "backward", "optimizer", "refresh"),
}  # what a pass runs through
OF_A_PHASE = ("optimizer", "refresh")  # whole phases that are one cause
MATCH, REACH = 4, 64  # operators that must agree after a difference, and the most that are left out at one

# This project's kernels, which no operator launches, by the names of their functions. One that multiplies by the base
# weight and adds the branch is fused.
TRITON = {
    "gemm_kernel": "fused",
    "gemm_tma_kernel": "fused",
    "gemm_sum_kernel": "fused",
    "gemm_sum_tma_kernel": "fused",
    "single_pass_kernel": "fused",
    "project_kernel": "branch",
    "branch_gradients_kernel": "branch",
    "skinny_kernel": "branch",
    "reduce_kernel": "branch",
    "gather_kernel": "gathers",
    "row_norms_kernel": "branch",
    "magnitude_kernel": "branch",
    "magnitude_gradient_kernel": "branch",
}


@dataclass(frozen=True)
class Role:
    """One operator as the dispatcher saw it. bytes: of its operands; flops: of its matrix product."""

    name: str  # as the profiler has it: aten::mm
    phase: str
    cause: str
    bytes: float = 0.0
    flops: float = 0.0
    light: bool = False  # a view or an allocation, which serves whatever it is made for


@dataclass(frozen=True)
class Event:
    """One operator or range that the profiler timed on the host, in the order of their starts.

    kernels: (name, us) of what it launched on a GPU. operator: False of a range, as autograd's nodes are: what these
    take themselves is work of Python and of autograd.
    """

    name: str
    phase: str
    self_us: float
    parent: int | None = None  # its place in the list
    kernels: tuple[tuple[str, float], ...] = ()
    operator: bool = True


@dataclass
class Tally:
    """What one cause took of one call."""

    us: float = 0.0
    launches: int = 0
    bytes: float = 0.0
    flops: float = 0.0

    def add(self, other: "Tally") -> None:
        self.us += other.us
        self.launches += other.launches
        self.bytes += other.bytes
        self.flops += other.flops


Tallies = dict[tuple[str, str], Tally]  # by phase and cause


def tally(
    roles: Sequence[Role],
    events: Sequence[Event],
    on_gpu: bool,
    loose: Sequence[tuple[str, str, float]] = (),
    compiled: bool = False,
) -> Tallies:
    """The causes of one call. loose: (phase, kernel, us) of kernels that no event launched.

    on_gpu: kernels count, else operators by their self time. compiled: what no role explains is a compiler's, unless it
    is an operator for attention, which compilers call as it is.
    """
    unknown = "fused" if compiled else "left_over"
    found: Tallies = {}
    for i, role in enumerate(_roles_of(roles, events)):
        event = events[i]
        if event.phase in OF_A_PHASE:
            cause = event.phase
        elif role is not None:
            cause = role.cause
        else:
            cause = "accumulation" if _adds_up(events, event) else unknown
            cause = "attention" if compiled and "attention" in event.name else cause
        for kernel, us in event.kernels if on_gpu else ():
            _count(found, event.phase, cause if event.phase in OF_A_PHASE else TRITON.get(kernel, cause), us)
        if not on_gpu:
            _count(found, event.phase, cause if event.operator else "gaps", event.self_us)
    for phase, kernel, us in loose:
        _count(found, phase, phase if phase in OF_A_PHASE else TRITON.get(kernel, unknown), us)
    for role in roles:
        key = role.phase, role.phase if role.phase in OF_A_PHASE else role.cause
        at = found.setdefault(key, Tally())
        at.bytes += role.bytes
        at.flops += role.flops
    return found


def _adds_up(events: Sequence[Event], event: Event) -> bool:
    """Whether autograd's node that takes a gradient into .grad runs it: the only one that is a cause by itself."""
    return event.parent is not None and events[event.parent].name == "torch::autograd::AccumulateGrad"


def _count(found: Tallies, phase: str, cause: str, us: float) -> None:
    at = found.setdefault((phase, cause), Tally())
    at.us += us
    at.launches += 1


def of_pass(found: Mapping[tuple[str, str], Tally], pass_: str) -> dict[str, Tally]:
    """The causes of a pass: those of its phases, added up."""
    causes: dict[str, Tally] = {}
    for (phase, cause), part in found.items():
        if phase in PHASES[pass_]:
            causes.setdefault(cause, Tally()).add(part)
    return causes


def _plain(name: str) -> str:
    """Whether a sum of gradients is made in place depends on who else holds them, a dispatch mode among others."""
    return name.removesuffix("_")


def _roles_of(roles: Sequence[Role], events: Sequence[Event]) -> list[Role | None]:
    """The role of each event; None where there is none."""
    found: list[Role | None] = [None] * len(events)
    own: set[int] = set()
    for phase in dict.fromkeys(role.phase for role in roles):
        seen = [role for role in roles if role.phase == phase]
        names = {_plain(role.name) for role in seen}
        outermost: list[int] = []  # events of those names inside of no other such
        within: set[int] = set()
        for i, event in enumerate(events):
            if event.phase != phase:
                continue
            if event.parent in within:
                within.add(i)
            elif event.operator and _plain(event.name) in names:
                within.add(i)
                outermost.append(i)
        for k, at in _alike([_plain(role.name) for role in seen], [_plain(events[i].name) for i in outermost]):
            found[outermost[at]] = seen[k]
            own.add(outermost[at])

    def composite(i: int | None) -> bool:
        return i is not None and events[i].operator and i not in own

    for light in (True, False):  # what is around takes the first within, which comes last this way
        for i in reversed(range(len(events))):
            role, parent = found[i], events[i].parent
            if parent is not None and composite(parent) and role is not None and role.light == light:
                found[parent] = role
    for i, event in enumerate(events):  # a parent begins before its children
        role = found[i]
        if event.parent is not None and (role is None or (role.light and composite(event.parent))):
            found[i] = found[event.parent] or role
    return found


def _alike(a: list[str], b: list[str]) -> Iterator[tuple[int, int]]:
    """Places in a and in b that belong together, in order, where either may have a few that the other has not.

    After a difference it goes on where the fewest are left out so that the next MATCH agree. difflib, which looks for
    the longest stretches, takes minutes over the operators of 48 blocks.
    """
    i = j = 0
    while i < len(a) and j < len(b):
        if a[i] == b[j]:
            yield i, j
            i, j = i + 1, j + 1
            continue
        ways = ((n, left) for n in range(1, REACH) for left in range(n, -1, -1))
        skip = next(((left, n - left) for n, left in ways if _agree(a, i + left, b, j + n - left)), None)
        if skip is None:
            return
        i, j = i + skip[0], j + skip[1]


def _agree(a: list[str], i: int, b: list[str], j: int) -> bool:
    there = a[i : i + MATCH]
    return bool(there) and there == b[j : j + MATCH]
