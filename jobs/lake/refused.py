"""The exception of checks; apart from what raises it, so that each of them may import it."""


class Refused(Exception):
    """A check refused the run (exit code 3); the message says which and what to do."""
