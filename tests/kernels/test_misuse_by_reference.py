"""Misuse, whichever way the call would have gone."""

from misuse_cases import *  # noqa: F403
