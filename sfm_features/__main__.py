"""`python -m sfm_features`, where the command is not on the path."""

import sys

from sfm_features.cli import main

if __name__ == "__main__":
    sys.exit(main())
