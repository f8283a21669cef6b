"""`python -m cmxjax` is `cmxjax`."""

import sys


def start() -> int:
    """Run the command line, interruptible from its first moment."""
    try:
        from .cli.main import main

        return main()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(start())
