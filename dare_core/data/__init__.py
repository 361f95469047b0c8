"""From raw logs, real or generated, to one schema and to samples."""
