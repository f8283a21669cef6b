"""`python -m cmxjax` is `cmxjax`."""

import sys

from ._interrupt import end_at_once


def start() -> int:
    """Run the command line."""
    end_at_once()
    from .cli.main import main

    return main()


if __name__ == "__main__":
    sys.exit(start())
