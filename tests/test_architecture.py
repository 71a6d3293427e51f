"""The import graph, drawn from the sources: no circles, and the layers that CONTRIBUTING.md states."""

import ast
import re
from pathlib import Path

import pytest

from tests.conftest import ROOT

Graph = dict[str, set[str]]


def _modules(package: str) -> dict[str, Path]:
    """Dotted names of a package's modules; a package itself stands for its __init__.py."""
    found = {}
    for path in (ROOT / package).rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def _imported(name: str, path: Path, modules: dict[str, Path]) -> set[str]:
    """The package's own modules that a module imports, wherever in its text the statement stands."""
    here = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = here[: len(here) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            for alias in node.names:
                full = f"{base}.{alias.name}"
                found.add(full if full in modules else base)
    return {m for m in found if m in modules} - {name}


def _graph(package: str) -> Graph:
    modules = _modules(package)
    return {name: _imported(name, path, modules) for name, path in modules.items()}


def _circle(graph: Graph) -> list[str] | None:
    """One circle of the graph, or None."""
    state: dict[str, int] = {}
    way: list[str] = []

    def visit(node: str) -> list[str] | None:
        state[node] = 1
        way.append(node)
        for other in sorted(graph.get(node, ())):
            if state.get(other) == 1:
                return [*way[way.index(other) :], other]
            if other not in state and (found := visit(other)):
                return found
        way.pop()
        state[node] = 2
        return None

    return next((found for node in sorted(graph) if node not in state and (found := visit(node))), None)


def _rooms(graph: Graph, depth: int) -> Graph:
    """The graph of folders: names cut to `depth` parts; a loose module is a room of its own."""
    rooms: Graph = {}
    for name, others in graph.items():
        room = ".".join(name.split(".")[:depth])
        rooms.setdefault(room, set()).update(".".join(o.split(".")[:depth]) for o in others)
    return {room: others - {room} for room, others in rooms.items()}


@pytest.mark.parametrize("package", ["bench", "kernels", "plots"])
def test_no_modules_import_each_other_in_a_circle(package: str) -> None:
    graph = _graph(package)
    assert len(graph) > 10
    assert _circle({name: others - {package} for name, others in graph.items() if name != package}) is None


@pytest.mark.parametrize("package", ["bench", "kernels", "plots"])
def test_no_folders_import_each_other_in_a_circle(package: str) -> None:
    rooms = _rooms(_graph(package), 2)
    rooms.pop(package)
    assert _circle({room: others - {package} for room, others in rooms.items()}) is None


@pytest.mark.parametrize("package", ["bench", "plots"])
def test_the_layers_are_those_that_contributing_states(package: str) -> None:
    """A folder or loose module imports from its own line's left and from the lines above it."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    block = re.search(rf"```layers {package}\n(.*?)```", text, re.DOTALL)
    assert block, f"CONTRIBUTING.md has no block ```layers {package}"
    lines = [line.split("#")[0].split() for line in block.group(1).splitlines() if line.strip()]
    floor = {f"{package}.{room}": i for i, line in enumerate(lines) for room in line}
    rooms = _rooms(_graph(package), 2)
    rooms.pop(package)
    assert rooms.keys() == floor.keys()
    wrong = {(a, b) for a, others in rooms.items() for b in others if b != package and floor[b] >= floor[a]}
    assert not wrong


def test_a_circle_is_found() -> None:
    assert _circle({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == ["a", "b", "c", "a"]
    assert _circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) is None


def test_no_file_is_longer_than_three_hundred_lines() -> None:
    long = [
        f"{path.relative_to(ROOT)}: {n}"
        for package in ("bench", "kernels", "plots")
        for path in (ROOT / package).rglob("*.py")
        if (n := len(path.read_text().splitlines())) > 300
    ]
    assert not long
