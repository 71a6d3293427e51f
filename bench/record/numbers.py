"""How a number with its interval is written, everywhere: on the terminal, in tables and on the page."""

from math import floor, log10

from bench.record.stats import Estimate


def with_interval(found: Estimate, most: int = 9) -> str:
    """'61.89 [61.77, 62.01]', with `most` decimals at most; 'no interval' stands where there is none.

    Both ends are told, since a wide interval is mostly lopsided and +- would promise values that cannot be.
    """
    places = min(decimals(found), most)
    if found.low is None or found.high is None:
        return f"{found.value:.{places}f} (no interval)"
    return f"{found.value:.{places}f} [{found.low:.{places}f}, {found.high:.{places}f}]"


def with_span(value: float, low: float, high: float) -> str:
    """'61.9 (55 .. 69)': how a prediction is written, so that it never looks like a measured value."""
    return f"{_three(value)} ({_three(low)} .. {_three(high)})"


def _three(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def decimals(found: Estimate) -> int:
    """Decimals that show two digits of the uncertainty, but no more than four digits of a value of 1 or more."""
    size = max(floor(log10(abs(found.value))), -2) if found.value else 0
    most = max(3 - size, 0)
    return max(min(most, 1 - floor(log10(found.half))), 0) if found.half else most
