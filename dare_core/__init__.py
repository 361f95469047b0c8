"""A reproducible study of *Long-Sequence Recommendation Models Need Decoupled Embeddings* (ICLR 2025)."""

import os

__version__ = "0.1.0"

# Before torch starts its threads: threads that wait for one another sleep in place of spinning. Spinning gains
# a little on an idle machine, and costs a factor of forty as soon as another process wants one of two cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
