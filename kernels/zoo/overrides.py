"""What the rules of configs.py cannot know: fields of single architectures, and configurations made of others."""

from collections.abc import Callable
from typing import Any

OVERRIDES: dict[str, dict[str, Any]] = {}


#: Architectures whose configuration class has no default of its own.
MADE: dict[str, Callable[[], Any]] = {}
