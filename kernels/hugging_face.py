"""The names of Hugging Face's package `kernels`, where both are there: its own __init__.py, run under this name.

Imported when such a name is first asked of `kernels`, never before. Its other modules are found on kernels.__path__.
"""

from .namesake import namesake

_folder = namesake()
if _folder is None:
    raise ImportError("no other package named kernels is installed")
__file__ = str(_folder / "__init__.py")
exec(compile((_folder / "__init__.py").read_bytes(), __file__, "exec"))
