"""Your own log: what was read, what is trained, the answer, and its report."""
