"""What is measured of a trained model or a baseline: metrics, intervals, relevance, retrieval."""
