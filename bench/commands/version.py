"""python -m bench --version: this checkout and what it would run with, without importing any of it."""

import platform

from bench import __version__
from bench.record.environment import commit, version


def version_line() -> str:
    """'lorabench 0.1.0 (commit 0123456789, dirty), Python 3.11.7, torch 2.13.0, triton 3.7.1'."""
    head, dirty = commit()
    where = f" (commit {head[:10]}{', dirty' if dirty else ''})" if head else ""
    found = {name: version(name) for name in ("torch", "triton")}
    told = [f"{name} {have}" if have else f"no {name}" for name, have in found.items()]
    return ", ".join([f"lorabench {__version__}{where}", f"Python {platform.python_version()}", *told])
