"""Where in a sweep file, or on the command line, a value comes from that cannot be."""

from collections.abc import Mapping
from dataclasses import dataclass

from bench.yamlfile import Where, YamlFile, place


@dataclass(frozen=True)
class Blame:
    """Of one entry of a sweep: its place in the file, and the flags that gave axes, by axis."""

    read: YamlFile
    where: Where
    on_cpu: bool
    flags: Mapping[str, str]

    def at(self, key: str) -> str:
        """The flag that gave an axis, or the place in the file."""
        if key in self.flags:
            return self.flags[key]
        there: list[Where] = [("cpu", "axes", key)] * self.on_cpu
        own: list[Where] = [(*self.where, key)]
        first = own + there if self.where[0] == "cpu" else there + own
        for candidate in (*first, ("axes", key), ("on_request", key)):
            if candidate in self.read.lines:
                return place(self.read, candidate)
        return place(self.read, self.where)
