"""Intake of a practitioner's own log: where its bytes come from, its form, its times, and what its card warns of."""
