"""Downstream systems, one a file."""

from __future__ import annotations

from types import ModuleType

from conf.settings import S3, Jdbc, Postgres, Redis, Settings, Sink, Webhook


def reach(settings: Settings, sink: Sink) -> None:
    """Starts the session where the sink is reached by its JVM; a run has one, what concerns a person may not."""
    if isinstance(sink, Jdbc):
        from jobs.lake.session import start

        start(settings)


def module_of(sink: Sink) -> ModuleType:
    """The file of its kind: `deliver`, `check`, `erase`, `rows_of`; where a target can be asked what it holds, `manifest`."""
    if isinstance(sink, Postgres):
        from jobs.sinks import postgres

        return postgres
    if isinstance(sink, Jdbc):
        from jobs.sinks import jdbc

        return jdbc
    if isinstance(sink, Redis):
        from jobs.sinks import redis

        return redis
    if isinstance(sink, S3):
        from jobs.sinks import s3

        return s3
    if isinstance(sink, Webhook):
        from jobs.sinks import webhook

        return webhook
    from jobs.sinks import folder

    return folder
