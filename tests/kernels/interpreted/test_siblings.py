"""The siblings' cases, in the interpreter."""

from tests.kernels.sibling_cases import *  # noqa: F403
