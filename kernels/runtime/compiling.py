"""What torch.compile takes for constants while it traces.

Imported then alone: marking a function so imports torch._dynamo, which would make `import kernels` three seconds longer
(CPU time, AMD EPYC).
"""

import torch
from torch import Tensor

from . import launch
from .stand_ins import stands_for_gpu


@torch.compiler.assume_constant_result
def have_triton() -> bool:
    """launch.have_triton, whose look for a module cannot be traced."""
    return launch.have_triton()


@torch.compiler.assume_constant_result
def interpreting() -> bool:
    """launch.interpreting, likewise."""
    return launch.interpreting()


def runs_triton(x: Tensor) -> bool:
    """launch.runs_triton; and what stands for a GPU's."""
    return stands_for_gpu(x) or (x.is_cuda and have_triton()) or (interpreting() and x.device.type == "cpu")
