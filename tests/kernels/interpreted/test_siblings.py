"""The siblings' cases, in the interpreter."""

from tests.kernels.sibling_cases import *  # noqa: F403
from tests.kernels.sibling_gradient_cases import *  # noqa: F403
