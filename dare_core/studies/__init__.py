"""One module per finding, named as its notebook: its statistics. What can be set is in `settings`."""
