"""``python -m fastlstm.cli``."""

import sys

from fastlstm.cli.command import main

if __name__ == "__main__":
    sys.exit(main())
