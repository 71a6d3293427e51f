"""These files run in Triton's interpreter, which must be chosen before the kernels are imported.

`pytest tests` therefore runs them in a process of their own (test_interpreted.py); started with TRITON_INTERPRET=1,
pytest collects them here like any others.
"""

import os

if os.environ.get("TRITON_INTERPRET") != "1":
    collect_ignore_glob = ["test_*.py"]
