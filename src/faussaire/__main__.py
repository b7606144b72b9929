"""`python -m faussaire`."""

import sys

from faussaire.cli import main

if __name__ == "__main__":
    sys.exit(main())
