"""The other package named `kernels`: Hugging Face's, where it is installed beside a checkout of this one.

transformers takes names from it at import, and a checkout's folder of the same name comes first on sys.path.
"""

import sys
from importlib.machinery import PathFinder
from pathlib import Path


def namesake() -> Path | None:
    """The folder of the package that `import kernels` would find were this one not there; None where there is none.

    Another checkout of this one is no other package. Nothing is imported.
    """
    for entry in sys.path:
        spec = PathFinder.find_spec("kernels", [entry])
        if spec is not None and spec.origin is not None:  # a folder without __init__.py has none
            found = Path(spec.origin).parent
            if found.resolve() != Path(__file__).resolve().parent and not (found / Path(__file__).name).exists():
                return found
    return None
