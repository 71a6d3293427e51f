"""Which tensors a launch may read before it waits for the kernel ahead of it, and which it writes.

tests/kernels/audit/test_dependent_launches.py shows that the compiled kernels do so and no more, the stub driver's
Watch that the kernel ahead writes none of what is read early.
"""

from kernels.runtime.launch import Launch

_WRITTEN = {
    "project_kernel": ("p_s", "p_mask"), "gemm_kernel": ("p_y",), "gemm_tma_kernel": ("d_y",),
    "gemm_sum_kernel": ("p_y",), "gemm_sum_tma_kernel": ("d_y",), "single_pass_kernel": ("p_s", "p_y"),
    "branch_gradients_kernel": ("p_ds", "p_db", "p_da"), "skinny_kernel": ("p_out",),
    "reduce_kernel": ("p_left_out", "p_right_out"), "gather_kernel": ("p_out",),
    "row_norms_kernel": ("p_squares",), "magnitude_kernel": ("p_y",), "magnitude_gradient_kernel": ("p_dz", "p_dm"),
}  # fmt: skip


def read_early(run: Launch) -> set[str]:
    """The inputs that this launch may read before it waits."""
    if not run.constants["PDL"]:
        return set()
    if run.name == "gemm_kernel":
        return {"p_x", "p_w"}
    if run.name == "gemm_tma_kernel":
        return {"d_x", "d_w"}
    if run.name == "gemm_sum_kernel":
        return {"p_x0", "p_x1", "p_x2", "p_w0", "p_w1", "p_w2"}
    if run.name == "gemm_sum_tma_kernel":
        return {"d_x0", "d_x1", "d_x2", "d_w0", "d_w1", "d_w2"}
    if run.constants.get("AHEAD"):
        return {"p_l", "p_index", "p_t", "p_mask"}
    return set()


def written(run: Launch) -> set[str]:
    """The inputs that this launch writes, where they are not None."""
    without = set() if run.constants.get("WITH_DA") else {"p_da"}
    return set(_WRITTEN[run.name]) - without
