"""What a kernel can do before it waits for the kernel ahead, read from its PTX: the instructions that some path from
its beginning reaches without griddepcontrol.wait, and the pointers whose memory they touch.
"""

import re
from dataclasses import dataclass

#: Instructions on global memory: a bulk copy's direction is the order of its two state spaces.
WRITES = re.compile(r"(st|red|atom|multimem)\.\S*global|cp\.(reduce\.)?async\.bulk\.\S*global\.shared")
READS = re.compile(
    r"ld\.\S*global|cp\.async\.\S*shared\S*\.global|prefetch|tex\.|cp\.async\.bulk\.\S*shared\S*\.global"
)
TRIGGER, WAIT = "griddepcontrol.launch_dependents", "griddepcontrol.wait"


@dataclass(frozen=True)
class Instruction:
    """guard is the register that predicates it, or ''; targets are the indices that a branch may go to."""

    opcode: str
    operands: str
    guard: str
    targets: tuple[int, ...]


@dataclass(frozen=True)
class BeforeWait:
    """waits: how many there are. reads, writes: names of pointers. triggers: whether the next kernel may begin."""

    waits: int
    reads: frozenset[str]
    writes: frozenset[str]
    triggers: bool


def before_wait(ptx: str, pointers: list[str]) -> BeforeWait:
    """pointers: the names of the kernel's pointers and descriptors, in order."""
    head, body = re.search(r"\.entry [^(]*\((.*?)\)(.*)", re.sub(r"//.*", "", ptx), re.DOTALL).groups()  # type: ignore[union-attr]
    # Triton adds two pointers, to scratch memory, at the end.
    places = [int(n) for line in head.splitlines() if re.search(r"\.ptr|\.b8", line)
              for n in re.findall(r"_param_(\d+)", line)]  # fmt: skip
    assert len(places) == len(pointers) + 2, f"{len(places)} pointers in the PTX, named are {pointers}"
    code = instructions(body)
    sources = sources_of_registers(code, dict(zip(places, pointers, strict=False)))
    reads: set[str] = set()
    writes: set[str] = set()
    triggers = False
    for index in reached(code):
        instruction = code[index]
        triggers |= instruction.opcode == TRIGGER
        for pattern, found in ((READS, reads), (WRITES, writes)):
            if pattern.match(instruction.opcode):
                touched = _addressed(instruction, sources)
                assert touched, f"{instruction.opcode} {instruction.operands}: of which pointer?"
                found |= touched
    return BeforeWait(sum(i.opcode == WAIT for i in code), frozenset(reads), frozenset(writes), triggers)


def instructions(body: str) -> list[Instruction]:
    """Those of a kernel's body, in order; labels of inline assembly may repeat, and mean the nearest one before."""
    parsed: list[tuple[str, str, str]] = []
    labels: dict[str, list[int]] = {}
    for statement in re.sub(r"^\s*\.(loc|file|reg|pragma|reqntid|maxntid|minnctapersm).*$", "", body, flags=re.M).split(
        ";"
    ):
        rest = statement.strip()
        while found := re.match(r"\s*(?:[{}]|([$\w]+):)\s*", rest):
            if found[1]:
                labels.setdefault(found[1], []).append(len(parsed))
            rest = rest[found.end() :]
        if found := re.match(r"(?:@(!?%?\w+)\s+)?([a-z]\S*)\s*(.*)", rest, re.DOTALL):
            parsed.append((found[2], found[3], found[1] or ""))
    made = []
    for index, (opcode, operands, guard) in enumerate(parsed):
        targets: tuple[int, ...] = ()
        if opcode.startswith("bra"):
            places = labels[operands.strip()]
            targets = (max((p for p in places if p <= index), default=min(places)) if len(places) > 1 else places[0],)
        made.append(Instruction(opcode, operands, guard, targets))
    return made


def reached(code: list[Instruction]) -> set[int]:
    """The instructions that may run before any wait."""
    found: set[int] = set()
    todo = [0]
    while todo:
        index = todo.pop()
        if index in found or index >= len(code):
            continue
        instruction = code[index]
        if instruction.opcode == WAIT:
            assert not instruction.guard, "a thread may pass the wait"
            continue
        found.add(index)
        todo += instruction.targets
        if instruction.guard or instruction.opcode.split(".")[0] not in ("bra", "ret", "exit", "trap"):
            todo.append(index + 1)
    return found


def sources_of_registers(code: list[Instruction], names: dict[int, str]) -> dict[str, set[str]]:
    """The pointers from which each register is computed; a value read from memory is computed from none."""
    sources: dict[str, set[str]] = {}
    changed = True
    while changed:
        changed = False
        for instruction in code:
            if instruction.opcode.split(".")[0] in ("st", "bra", "bar", "ret") or READS.match(instruction.opcode):
                continue
            target, _, operands = instruction.operands.partition("}" if instruction.operands.startswith("{") else ",")
            given = {names[int(n)] for n in re.findall(r"_param_(\d+)", operands) if int(n) in names}
            given = given.union(*(sources.get(register, ()) for register in re.findall(r"%\w+", operands)))
            for register in re.findall(r"%\w+", target):
                if not given <= sources.setdefault(register, set()):
                    sources[register] |= given
                    changed = True
    return sources


def _addressed(instruction: Instruction, sources: dict[str, set[str]]) -> set[str]:
    return set().union(*(sources.get(register, ()) for register in re.findall(r"%\w+", instruction.operands)))
