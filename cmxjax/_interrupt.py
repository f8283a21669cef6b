"""Ctrl-C ends the command line at once while it loads, and later is an exception.

Packages turn an exception that interrupts their import into another one.
"""

import os
import signal

INTERRUPTED = 130
"""Exit status."""


def _leave(*_: object) -> None:
    os._exit(INTERRUPTED)


def end_at_once() -> None:
    """Until `raise_again`: nothing is open yet that would have to be closed."""
    signal.signal(signal.SIGINT, _leave)


def raise_again() -> None:
    """From now on Ctrl-C raises KeyboardInterrupt, if `end_at_once` was called."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)
