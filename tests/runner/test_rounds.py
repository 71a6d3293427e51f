"""Rounds on a simulated machine: what they give over a sequence, and what a lost case costs the others."""

from collections.abc import Callable

import numpy as np
import pytest

from bench.record.stats import generator, median_draws, ratio_estimate, ratios_by_round
from bench.runner.rounds import Gone, Rounds
from bench.timing.measurement import Samples
from bench.timing.settings import MeasureSettings

KEY = ("forward-backward", "cpu-time")
SETTINGS = MeasureSettings(budget_s=3.0, wall_s=60, ratio_target=1e-9)  # so that all take the same time
TRUE = 1.3

Slowness = Callable[[float], float]  # of the machine at a time in seconds


class Machine:
    """Its speed changes while it works, and only work moves its clock."""

    def __init__(self, slowness: Slowness, rng: np.random.Generator, jitter: float = 0.02) -> None:
        self.time, self._slowness, self._rng, self._jitter = 0.0, slowness, rng, jitter

    def now(self) -> float:
        return self.time

    def work(self, seconds: float) -> float:
        took = seconds * self._slowness(self.time) * float(np.exp(self._jitter * self._rng.standard_normal()))
        self.time += took
        return took * 1e3


class Player:
    """A case whose call takes so many seconds on a machine at rest."""

    def __init__(self, machine: Machine, seconds: float, dies_in: int | None = None) -> None:
        self.machine, self.seconds, self.dies_in = machine, seconds, dies_in
        self.samples: list[float] = []
        self.rounds: list[int] = []
        self.order: list[tuple[int, float]] = []

    def block(self, number: int, seconds: float) -> Samples:
        if number == self.dies_in:
            raise Gone
        self.order.append((number, self.machine.time))
        began = self.machine.time
        block = [self.machine.work(self.seconds)]
        while self.machine.time - began < seconds:
            block.append(self.machine.work(self.seconds))
        self.samples += block
        self.rounds += [number] * len(block)
        return {KEY: block}


def drift(rng: np.random.Generator) -> Slowness:
    """Slower and slower, by up to a third in a minute."""
    return lambda t: 1 + t / 180


def steps(rng: np.random.Generator) -> Slowness:
    """A neighbour comes and goes, for some seconds each."""
    edges = np.cumsum(rng.exponential(4.0, 100))
    return lambda t: 1.5 if np.searchsorted(edges, t) % 2 else 1.0


def bursts(rng: np.random.Generator) -> Slowness:
    """Short waits: a tenth of all calls take three times as long."""
    return lambda t: 3.0 if rng.random() < 0.1 else 1.0


def all_at_once(rng: np.random.Generator) -> Slowness:
    parts = [drift(rng), steps(rng), bursts(rng)]
    return lambda t: float(np.prod([part(t) for part in parts]))


MACHINES = [drift, steps, bursts, all_at_once]


def in_rounds(slowness: Slowness, rng: np.random.Generator) -> tuple[float, float, float]:
    """(ratio, low, high) of two cases among four, measured in turns."""
    machine = Machine(slowness, rng)
    players = [Player(machine, 0.05 * r) for r in (1, TRUE, 0.8, 2)]
    Rounds(players, [KEY], "block", SETTINGS, machine.now).run()
    base, ours = players[:2]
    found = ratio_estimate(ratios_by_round(ours.samples, ours.rounds, base.samples, base.rounds))
    assert found.low is not None and found.high is not None
    return found.value, found.low, found.high


def in_sequence(slowness: Slowness, rng: np.random.Generator) -> tuple[float, float, float]:
    """The same of the medians of cases measured one after the other, for as long."""
    machine = Machine(slowness, rng)
    base, ours = [], []
    for seconds, taken in ((0.05, base), (0.05 * TRUE, ours)):
        end = machine.time + 3.0
        while machine.time < end:
            taken.append(machine.work(seconds))
        machine.time += 3.0  # another case between
    a, b = (median_draws(x, generator(i)) for i, x in enumerate((base, ours)))
    assert a is not None and b is not None
    low, high = np.percentile(b / a, (2.5, 97.5))
    return float(np.median(ours) / np.median(base)), float(low), float(high)


@pytest.mark.parametrize("machine", MACHINES)
def test_the_interval_of_rounds_covers_and_their_ratio_errs_less(machine: Callable[..., Slowness]) -> None:
    def tried(how: Callable[..., tuple[float, float, float]]) -> tuple[float, float]:
        """(coverage, relative error) over trials."""
        found = []
        for seed in range(120):
            rng = np.random.default_rng(seed)
            found.append(how(machine(rng), rng))
        ratios, low, high = np.array(found).T
        return float(np.mean((low <= TRUE) & (high >= TRUE))), float(np.sqrt(np.mean((ratios / TRUE - 1) ** 2)))

    covers, error = tried(in_rounds)
    _, sequence = tried(in_sequence)
    assert covers >= 0.93
    if machine is not bursts:  # which are the same for all, whatever the order
        assert error < sequence / 1.5


def test_every_case_stands_in_every_place_equally_often() -> None:
    machine = Machine(lambda t: 1.0, np.random.default_rng(0), jitter=1e-6)
    players = [Player(machine, 0.05) for _ in range(3)]
    rounds = Rounds(players, [KEY], "block", MeasureSettings(max_rounds=12, ratio_target=1e-9), machine.now)
    assert rounds.run() == "rounds"
    places = np.zeros((3, 3), dtype=int)
    for number in range(12):
        began = [next(t for n, t in p.order if n == number) for p in players]
        for player, place in enumerate(np.argsort(np.argsort(began))):
            places[player, place] += 1
    assert (places == 4).all()


def test_rounds_stop_when_the_ratios_have_converged_or_the_budget_is_spent() -> None:
    def stop(jitter: float, **settings: float) -> tuple[str, int]:
        machine = Machine(lambda t: 1.0, np.random.default_rng(1), jitter)
        players = [Player(machine, 0.02), Player(machine, 0.03)]
        rounds = Rounds(players, [KEY], "block", MeasureSettings(**settings), machine.now)
        return rounds.run(), rounds.done

    assert stop(0.001) == ("converged", 12)
    assert stop(0.2)[0] == "budget"
    assert stop(0.2, wall_s=0.5) == ("wall", 6), "six rounds carry an interval"


@pytest.mark.parametrize("who", [0, 1, 2])
def test_a_case_that_is_lost_leaves_the_others_theirs(who: int) -> None:
    machine = Machine(lambda t: 1.0, np.random.default_rng(2))
    players = [Player(machine, 0.05 * r, dies_in=3 if i == who else None) for i, r in enumerate((1, TRUE, 0.8))]
    rounds = Rounds(players, [KEY], "block", MeasureSettings(max_rounds=20, ratio_target=1e-9), machine.now)
    assert rounds.run() == "rounds"
    assert rounds.live == [p for i, p in enumerate(players) if i != who]
    assert {len(set(p.rounds)) for p in rounds.live} == {20} and len(set(players[who].rounds)) == 3


def test_a_case_alone_takes_no_rounds() -> None:
    machine = Machine(lambda t: 1.0, np.random.default_rng(2))
    players = [Player(machine, 0.05), Player(machine, 0.05, dies_in=2)]
    assert Rounds(players, [KEY], "block", SETTINGS, machine.now).run() == "lost"
