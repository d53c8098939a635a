"""The planted lake, for all tests of this folder."""

from tests.jobs.erase.planted import plant

__all__ = ["plant"]
