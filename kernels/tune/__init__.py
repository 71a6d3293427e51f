"""The tuner: python -m kernels.tune."""
