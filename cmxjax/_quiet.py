"""What must be said before JAX is imported, by whichever module of the package.

The loader of cached programs reports two of the compiler's tuning hints as missing
processor features, at length. JAX reads this level when it is imported.
"""

import os
import sys

QUIET = "jax" not in sys.modules
"""Whether it was said in time."""

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
