"""What is measured: a case as a point on the axes, its words, the columns of its row, shapes of models. No torch."""

from bench.case.case import AXES, OPTIONS, Case, read_case

__all__ = ["AXES", "OPTIONS", "Case", "read_case"]
