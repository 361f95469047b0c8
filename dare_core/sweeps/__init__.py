"""Sweeps: a declared grid of trainings, computed on one machine or on a cluster, and its table of results."""
