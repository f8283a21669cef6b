"""`python -m cmxjax` is `cmxjax`."""

import sys

from .cli.main import main

sys.exit(main())
