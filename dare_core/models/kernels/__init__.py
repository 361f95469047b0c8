"""Compiled or fused replacements of plain torch operations: the same numbers in less time."""
