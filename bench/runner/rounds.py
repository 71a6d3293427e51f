"""Rounds: the cases of a comparison give blocks of samples in turns, so that what drifts falls on all of them alike."""

from collections.abc import Callable, Sequence
from statistics import median
from typing import Generic, Protocol, TypeVar

import numpy as np

from bench.case.clocks import between_starts
from bench.record.stats import MIN_SAMPLES, Estimate, inflation, ratio_estimate
from bench.timing.measurement import Samples
from bench.timing.settings import MeasureSettings

LOST = "lost"  # why rounds stopped where fewer than two cases are left


class Gone(Exception):
    """A case gives no more blocks."""


class Turn(Protocol):
    """A case that takes part."""

    def block(self, number: int, seconds: float) -> Samples:
        """Its samples in round `number`, in ms by (pass, clock). Raises Gone."""


T = TypeVar("T", bound=Turn)


class Rounds(Generic[T]):
    """Rounds over live cases, the baseline first, until their ratios have converged or a budget is spent."""

    def __init__(
        self,
        turns: Sequence[T],
        keys: Sequence[tuple[str, str]],
        level: str,
        settings: MeasureSettings,
        now: Callable[[], float],
    ) -> None:
        """keys: (pass, clock) of the ratios that must converge. now: wall time in seconds."""
        self.live = list(turns)
        self._keys, self._settings, self._now = list(keys), settings, now
        self._budget_s = settings.budget(level)
        self._blocks: dict[T, list[dict[tuple[str, str], float]]] = {t: [] for t in turns}  # medians, round by round
        self._measured_s = 0.0
        self.done = 0

    def run(self, on_round: Callable[["Rounds[T]"], None] = lambda _rounds: None) -> str:
        """Takes rounds; why it stopped: converged, budget, wall, rounds or LOST."""
        began = self._now()
        while len(self.live) > 1:
            for turn in self._order():
                try:
                    block = turn.block(self.done, self._settings.block_s)
                except Gone:
                    self.live.remove(turn)
                    continue
                self._blocks[turn].append({key: median(samples) for key, samples in block.items()})
                self._measured_s += sum(block[self._whole(block)]) / 1e3
            self.done += 1
            on_round(self)
            if reason := self._stop(self._now() - began):
                return reason
        return LOST

    def ratios(self, turn: T) -> list[Estimate]:
        """The ratio of a case to the baseline so far, one for each of the keys."""
        return [
            ratio_estimate(series, between_starts(key[1]))
            for key in self._keys
            if len(series := self._series(turn, key))
        ]

    def _order(self) -> list[T]:
        """Forward and back again, and each pair of rounds begins with another case: over 2 n rounds each of n cases has
        stood in every place equally often."""
        pair, back = divmod(self.done, 2)
        k = pair % len(self.live)
        order = self.live[k:] + self.live[:k]
        return order[::-1] if back else order

    def _whole(self, block: Samples) -> tuple[str, str]:
        """The key whose samples hold those of all others, or come last."""
        return next(key for key in reversed(self._keys) if key in block)

    def _series(self, turn: T, key: tuple[str, str]) -> list[float]:
        ours, base = self._blocks[turn], self._blocks[self.live[0]]
        return [a[key] / b[key] for a, b in zip(ours, base, strict=False) if b.get(key) and key in a]

    def _stop(self, wall_s: float) -> str | None:
        s, n, cases = self._settings, self.done, len(self.live)
        if wall_s >= s.wall_s * cases and n >= MIN_SAMPLES:
            return "wall"
        if n % 2 or n < s.min_rounds:  # back again
            return None
        series = [self._series(t, key) for t in self.live[1:] for key in self._keys]
        # As for single medians, at two looks in a row: see bench.timing.stop.
        if all(_converged(x[: len(x) - back], s.ratio_target) for x in series for back in (0, 2)):
            return "converged"
        if self._measured_s >= self._budget_s * cases:
            return "budget"
        return "rounds" if n >= s.max_rounds else None


def _converged(ratios: Sequence[float], target: float) -> bool:
    found = ratio_estimate(ratios)
    if found.half is None or len(ratios) < 4 * inflation(np.asarray(ratios)):
        return False
    return found.half <= 0.9 * target * found.value
