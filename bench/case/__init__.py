"""What is measured: a case as a point on the axes, its words, the columns of its row, shapes of models. No torch."""

from bench.case.case import Case

__all__ = ["Case"]
