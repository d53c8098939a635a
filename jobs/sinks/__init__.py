"""Downstream systems, one a file."""

from __future__ import annotations

from types import ModuleType

from conf.settings import Postgres, Redis, Sink


def module_of(sink: Sink) -> ModuleType:
    """The file of its kind, with `deliver`, `erase` and `rows_of`."""
    if isinstance(sink, Postgres):
        from jobs.sinks import postgres

        return postgres
    if isinstance(sink, Redis):
        from jobs.sinks import redis

        return redis
    from jobs.sinks import folder

    return folder
