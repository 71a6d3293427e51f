"""lorabench: which way of fine-tuning is really faster on this GPU, and why."""

__version__ = "0.1.0"
