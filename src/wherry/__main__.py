"""``python -m wherry`` is the ``wherry`` command."""

import sys

from wherry.cli import main

if __name__ == "__main__":
    sys.exit(main())
