"""python -m bench"""

import sys

from bench.process import begin

begin()  # before anything else is imported

try:
    from bench.cli import main
except ModuleNotFoundError as e:
    if e.name is None or e.name.split(".")[0] in ("bench", "kernels"):  # a fault of ours
        raise
    from bench.needs import cannot_start, report

    if sys.argv[1:] == ["doctor"]:
        sys.exit(report())
    print(cannot_start(e.name), file=sys.stderr)
    sys.exit(2)

main()
