"""``python -m bundle``: the command `tpseg`."""

import sys

from bundle.commands.main import main

if __name__ == "__main__":
    sys.exit(main())
