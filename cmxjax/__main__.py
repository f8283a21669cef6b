"""`python -m cmxjax` is `cmxjax`."""

import sys

from .cli import main

sys.exit(main())
