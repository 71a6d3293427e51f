"""Fixed cost and slope of straight lines through the times of several lengths."""

from bench.record.numbers import with_interval
from plots.data.length_fit import fit_lengths
from plots.data.panels import Panel
from plots.render.blocks import Table
from plots.text.captions import caption, title


def lengths_table(panel: Panel) -> Table | None:
    """Fixed cost and slope of each model, batch, training type and pass."""
    found = fit_lengths(panel)
    if not found:
        return None
    lines = [
        (subject, str(batch), type_, pass_, with_interval(line.fixed_ms), with_interval(line.slope_ms.times(1e3)),
         f"{100 * line.worst:.1f}")
        for (subject, batch, type_, pass_), line in found.items()
    ]  # fmt: skip
    points = sorted({line.points for line in found.values()})
    return Table(
        title("Fixed cost and slope", panel),
        "time = fixed + slope x tokens, tokens = batch x length, least squares of relative errors through "
        f"{' to '.join(dict.fromkeys([str(points[0]), str(points[-1])]))} lengths; intervals are Student's 95 % from "
        "the residuals. Fixed is what does not shrink with the input (launches, host); a straight line leaves out that "
        "attention grows with the square of the length, so a large residual means that fixed is not to be trusted. "
        f"{caption(panel)}",
        ("Model", "Batch", "Training type", "Pass"),
        (("Fixed (ms)", ()), ("Slope (us a token)", ()), ("Largest residual (%)", ())),
        tuple(lines),
    )
