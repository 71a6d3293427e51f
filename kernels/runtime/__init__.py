"""What the kernels share: launches, the dispatcher with its tables, argument checks, helpers inside of kernels."""
