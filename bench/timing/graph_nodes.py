"""How many launches a captured CUDA graph holds, asked of the driver."""

import ctypes
from collections import Counter
from functools import cache

LAUNCHES = (0, 1, 2)  # kernel, copy, memset: CUgraphNodeType in cuda.h. Events and empty nodes launch nothing.


@cache
def _driver() -> ctypes.CDLL | None:
    """libcuda, which any process with a CUDA context has loaded. A runtime graph is a driver graph: the handles of
    the two interfaces are interchangeable (CUDA Driver API, 'Interactions between Runtime and Driver')."""
    for name in ("libcuda.so.1", "nvcuda.dll"):
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


def count_nodes(graph: int, driver: ctypes.CDLL | None = None) -> int | None:
    """Kernels, copies and memsets of the graph with this handle; None where the driver does not say."""
    driver = driver or _driver()
    if driver is None:
        return None
    handle, number = ctypes.c_void_p(graph), ctypes.c_size_t(0)
    if driver.cuGraphGetNodes(handle, None, ctypes.byref(number)) != 0:
        return None
    nodes = (ctypes.c_void_p * number.value)()
    if driver.cuGraphGetNodes(handle, nodes, ctypes.byref(number)) != 0:
        return None
    kinds: Counter[int] = Counter()
    for node in nodes:
        kind = ctypes.c_int(-1)
        if driver.cuGraphNodeGetType(ctypes.c_void_p(node), ctypes.byref(kind)) != 0:
            return None
        kinds[kind.value] += 1
    return sum(kinds[kind] for kind in LAUNCHES)
