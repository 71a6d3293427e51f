"""lorabench: which way of fine-tuning is really faster on this GPU, and why."""

import logging
import os

__version__ = "0.1.0"

# Where Hugging Face's package `kernels` is installed, transformers wraps functions of its models for it, and fetches
# code from the Hub while it builds some. Here models are the same with that package and without it.
os.environ["USE_HUB_KERNELS"] = "NO"
logging.getLogger("transformers.integrations.hub_kernels").setLevel(logging.ERROR)  # it warns that this is so
