"""The planted lake, for all tests of this folder."""

from tests.jobs.erase.planted import plant, planted_once

__all__ = ["plant", "planted_once"]
