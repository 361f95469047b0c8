"""Click models: embedding tables, scores, search, projections, and the table of all models."""
