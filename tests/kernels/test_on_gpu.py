"""The kernel cases, on a GPU."""

import pytest
import torch

if not torch.cuda.is_available():
    pytest.skip("no GPU here", allow_module_level=True)

from tests.kernels.dora_cases import *  # noqa: F403
from tests.kernels.dropout_cases import *  # noqa: F403
from tests.kernels.group_cases import *  # noqa: F403
from tests.kernels.kernel_cases import *  # noqa: F403
from tests.kernels.sibling_cases import *  # noqa: F403
from tests.kernels.sibling_gradient_cases import *  # noqa: F403

pytestmark = pytest.mark.gpu
