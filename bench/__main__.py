"""python -m bench"""

from bench.process import begin

begin()  # before anything else is imported

from bench.cli import main  # noqa: E402

main()
