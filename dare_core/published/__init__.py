"""The authors' published code: configuration, model, weights and samples."""
