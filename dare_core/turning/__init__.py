"""Where the verdicts turn, and on which logs two tables pay: cells of a protocol, and what is measured in them."""
