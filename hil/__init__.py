"""The bench: the payload on a device under test.

Matrix products on one thread: the entropy coder's are so small that OpenBLAS's own threads cost more than they give (a
tile took seven times as long on two busy cores), and what flies is measured on one. Set before numpy is loaded, on
host and device alike, where the caller has not said otherwise.
"""

import os

for _name in ("OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
    os.environ.setdefault(_name, "1")
