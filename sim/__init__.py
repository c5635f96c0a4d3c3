"""The ground and the space between: scenes, missions, link, decoder, verification, report.

The payload is one thread, so its matrix products get one too: a second one, spinning while it waits for work, made the
entropy coder four times as slow in processor time. A number the user has set stands.
"""

import os

from payload.version import VERSION

__version__ = VERSION

for _name in ("OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
    os.environ.setdefault(_name, "1")
