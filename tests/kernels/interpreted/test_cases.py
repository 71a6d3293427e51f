"""The kernel cases, in the interpreter."""

from kernel_cases import *  # noqa: F403
