"""Which of several folders stand side by side on a page over boards: those of one sweep, GPUs apart from CPUs."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from plots.data.load import Folder
from plots.text.sections import shown

WHERE = "boards"  # the folder of the page
ROOM = 40  # letters of a board's name


@dataclass(frozen=True)
class Kin:
    """Folders to put side by side, by the names of their boards."""

    sweep: str
    folders: dict[str, Folder]

    @property
    def is_cpu(self) -> bool:
        return next(iter(self.folders.values())).is_cpu

    @property
    def what(self) -> str:
        return "CPU" if self.is_cpu else "GPU"

    @property
    def place(self) -> Path:
        """`boards` in the folder that all have in common; beside the first where that is the root alone."""
        paths = [folder.path.resolve() for folder in self.folders.values()]
        common = Path(os.path.commonpath(paths))
        return Path(shown((common if common != Path(common.anchor) else paths[0].parent) / WHERE))

    @property
    def stem(self) -> str:
        """Its name as that of a folder, where there are several pages."""
        name = re.sub(r"[^\w.-]+", "-", self.sweep).strip(".-") or "sweep"
        return f"{name}-cpu" if self.is_cpu else name


def find_kin(folders: Sequence[Folder]) -> tuple[list[Kin], list[str]]:
    """The pages to be drawn, and notes on what stands on none. A record that is there twice stands on one once."""
    notes: list[str] = []
    devices: set[str] = set()
    groups: dict[tuple[str, bool], list[Folder]] = {}
    for folder in folders:
        group = groups.setdefault((folder.sweep_name, folder.is_cpu), [])
        same = next((other for other in group if _is_copy(folder, other)), None)
        if same is None:
            group.append(folder)
            devices.add(folder.device)
        elif folder.path.resolve() != same.path.resolve():
            notes.append(f"{folder.path}: the same record as {same.path}; one of them stands among the boards")
    pages = [Kin(sweep, names(group)) for (sweep, _), group in groups.items() if len(group) > 1]
    if pages or len(devices) > 1:
        for (sweep, is_cpu), group in groups.items():
            if len(group) == 1:
                notes.append(f"{group[0].path}: {_alone(sweep, is_cpu, groups)}; not put beside others")
    return pages, notes


def _is_copy(one: Folder, other: Folder) -> bool:
    return one.path.resolve() == other.path.resolve() or (bool(one.rows) and one.rows == other.rows)


def _alone(sweep: str, is_cpu: bool, groups: dict[tuple[str, bool], list[Folder]]) -> str:
    if (sweep, not is_cpu) in groups:
        return f"the only {'CPU' if is_cpu else 'GPU'}, and CPU times are no GPU times"
    return f"the only one of sweep {sweep}"


def names(folders: Sequence[Folder]) -> dict[str, Folder]:
    """The folders by the names of their boards; namesakes with what tells their paths apart."""
    plain = [_name(folder) for folder in folders]
    found = {}
    for name, folder in zip(plain, folders, strict=True):
        alike = [other.path.resolve().parts for other, its in zip(folders, plain, strict=True) if its == name]
        if len(alike) > 1:
            before = _shared(alike)
            after = _shared([parts[before:][::-1] for parts in alike])
            own = folder.path.resolve().parts[before:]
            name = f"{name} ({Path(*own[: len(own) - after])})"
        found[name] = folder
    return found


def _shared(paths: Sequence[tuple[str, ...]]) -> int:
    """With how many equal parts all of them begin."""
    return sum(1 for _ in takewhile(lambda parts: len({*parts}) == 1, zip(*paths, strict=False)))


def _name(folder: Folder) -> str:
    device = folder.device.removeprefix("NVIDIA ")
    if folder.is_cpu and device.startswith("a CPU ("):
        device = device.removeprefix("a CPU (").removesuffix(")")
    return device if len(device) <= ROOM else device[: ROOM - 3] + "..."
