"""Errors caused by user input; the message says how to fix it."""


class InputError(ValueError):
    """Bad input. The message is one sentence: what is wrong, where, and what to do.

    The command line prints the message alone and exits with status 2.
    """
