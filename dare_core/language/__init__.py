"""The character-level language model of claim P3."""
