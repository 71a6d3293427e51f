"""The compile audit: python -m kernels.audit."""
