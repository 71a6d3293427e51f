"""Misuse, whichever way the call would have gone."""

from tests.kernels.misuse_cases import *  # noqa: F403
