"""``python -m mtaq`` is ``mtaq``."""

import sys

from mtaq.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
