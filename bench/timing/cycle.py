"""What takes turns is timed by turns: a sample is one of each stage, and their mean its value.

Blocks that change every some steps (lisa-G) make every stage another amount of work, since gradients go as far down as
the lowest block that trains. What a change itself costs is in no sample: it comes every some steps, and how many is no
part of a case.
"""

from typing import Any

from bench.timing.base import Clock, Sample, Unsupported


class CycleClock(Clock):
    """Another clock, over whole cycles."""

    def __init__(self, clock: Clock, stages: int) -> None:
        super().__init__()
        self.name = clock.name
        self.calls = clock.calls * stages
        self.launches = clock.launches
        self._clock = clock

    def prepare(self, work: Any, level: str) -> None:
        if self.name == "graph":
            raise Unsupported(
                f"a CUDA graph holds one set of blocks that train, and here {work.stages} take turns; clock eager"
                " times them"
            )
        self._clock.prepare(work, level)

    def warm_up(self) -> None:
        self._clock.warm_up()

    def settle(self) -> None:
        self._clock.settle()

    def sample(self, work: Any, step: bool) -> Sample | None:
        """The mean over the stages; None where one of them does not count."""
        samples = []
        for stage in range(work.stages):
            work.select(stage)
            if step:
                work.ready_optimizer()
            samples.append(self._clock.sample(work, step))
        counted = [s for s in samples if s is not None]
        if len(counted) < len(samples):
            return None
        return {key: sum(s[key] for s in counted) / len(counted) for key in counted[0]}

    def close(self) -> None:
        self._clock.close()
