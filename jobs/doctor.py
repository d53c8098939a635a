"""What a machine needs before a night can run on it, and how to mend what is missing. Starts no JVM but to ask its version."""

from __future__ import annotations

import glob
import os
import re
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from conf.settings import S3, Folder, Jdbc, Postgres, Redis, Settings, SettingsError, Webhook, find
from jobs.lake.java import java_problem

_GIB = 2**30
_FREE_DISK = 2 * _GIB
_PYTHON_MEMORY = _GIB  # besides the JVM: Python workers and the training process
_TIMEOUT = 3  # seconds that a server is given to answer
_SIZE = r"(\d+)([kmgt]?)b?"
_PASSWORD = re.compile(r"(password=|:)[^@\s]+(?=@|\s|$)")


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing looked at: `found` in a phrase; `problem`, if any, says what is wrong and how to mend it."""

    name: str
    found: str = ""
    problem: str | None = None

    def line(self) -> str:
        return f"{'ok  ' if self.problem is None else 'MEND'}  {self.name:<18} {self.problem or self.found}".rstrip()


def checks(settings: Settings) -> Iterator[Check]:
    """All checks, each as soon as it is made; none raises."""
    yield _python()
    yield _packages()
    yield _java()
    yield _lightgbm(settings)
    yield _jars(settings)
    yield _memory(settings)
    yield _disk("disk: lake", _nearest(settings.lake))
    yield _disk("disk: temporary", Path(tempfile.gettempdir()))
    yield _key(settings)
    yield _lake(settings.lake)
    yield _master(settings.spark.master)
    if settings.privacy.ip_database is not None:
        yield _ip_database(settings)
    for source, feed in settings.sources.items():
        yield _source(source, feed.mapping, feed.path)
    for name, sink in settings.sinks.items():
        if isinstance(sink, Postgres):
            yield _postgres(name, sink)
        elif isinstance(sink, Jdbc):
            yield _jdbc(name, sink)
        elif isinstance(sink, Redis):
            yield _redis(name, sink)
        elif isinstance(sink, S3):
            yield _s3(name, sink)
        else:
            yield _folder(name, sink) if isinstance(sink, Folder) else _webhook(name, sink)
    if settings.alert.url_env is not None:
        yield _alert(settings.alert.url_env)


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    wrong = sys.version_info[:2] not in ((3, 11), (3, 12))
    problem = f"this is Python {version}: make the environment anew with 3.11 or 3.12 (make clean setup PYTHON=python3.11)"
    return Check(name="Python", found=version, problem=problem if wrong else None)


def _packages() -> Check:
    from packaging.requirements import Requirement

    try:
        wanted = [Requirement(text) for text in metadata.requires("wherewhen") or []]
    except metadata.PackageNotFoundError:
        return Check(name="packages", problem="wherewhen is not installed in this environment: make setup")
    wanted = [one for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]
    wrong = []
    for one in wanted:
        try:
            installed = metadata.version(one.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{one.name} is missing")
            continue
        if not one.specifier.contains(installed, prereleases=True):
            wrong.append(f"{one.name} is {installed}, not {one.specifier}")
    problem = f"{'; '.join(wrong)}: make setup (or pip install --require-hashes -r requirements.lock)"
    return Check(name="packages", found=f"{len(wanted)} as pinned", problem=problem if wrong else None)


def _java() -> Check:
    return Check(name="Java", found="17", problem=java_problem())


def _lightgbm(settings: Settings) -> Check:
    """Its wheel leaves OpenMP to the system."""
    if settings.ranker.by != "trees":
        return Check(name="LightGBM", found="not needed: ranker.by is network")
    try:
        import lightgbm
    except (ImportError, OSError) as error:
        how = "install OpenMP (Debian: apt-get install libgomp1), or do without: ranker.by: network"
        return Check(name="LightGBM", problem=f"step ranker cannot load it ({error}): {how}")
    return Check(name="LightGBM", found=lightgbm.__version__)


def _jars(settings: Settings) -> Check:
    """Only a log that is kept in a Delta table needs them: the lake's own tables are read and written without."""
    try:
        from jobs.lake import session
    except ImportError as error:
        return Check(name="jars", problem=f"pyspark cannot be imported ({error}): make setup")
    version = session.DELTA.rsplit(":", 1)[1]
    stored = [Path(jar).name for jar in session.jars()]
    if any(jar.endswith(f"-{version}.jar") and "delta-spark" in jar for jar in stored):
        return Check(name="jars", found=f"Delta {version} in {session.JAR_DIR}")
    if not session.reads_delta(settings):
        return Check(name="jars", found="not needed: no source is a Delta table")
    return Check(name="jars", problem=f"Delta {version} is not in {session.JAR_DIR}: wherewhen doctor --fetch-jars")


def _memory(settings: Settings) -> Check:
    import psutil

    if not settings.spark.master.startswith("local"):
        return Check(name="memory", found=f"the cluster's own ({settings.spark.master})")
    given = settings.spark.driver_memory
    if re.fullmatch(_SIZE, given.lower()) is None:
        return Check(name="memory", problem=f"spark.driver_memory is {given}: write it as 2g or 512m")
    needed = _bytes(given) + _PYTHON_MEMORY
    free = min(psutil.virtual_memory().available, _container_memory())
    found = f"{free / _GIB:.1f} GiB free, {needed / _GIB:.1f} GiB needed (spark.driver_memory and 1 GiB for Python)"
    problem = f"{found}: stop something, or lower it: --set spark.driver_memory=1g"
    return Check(name="memory", found=found, problem=problem if free < needed else None)


def _container_memory() -> float:
    """What the control group leaves, where there is one with a limit."""
    folder = Path("/sys/fs/cgroup")
    try:
        return int((folder / "memory.max").read_text()) - int((folder / "memory.current").read_text())
    except (OSError, ValueError):
        return float("inf")


def _bytes(text: str) -> int:
    """Java's way to write a size: 512m, 2g.

    >>> _bytes("2g") == 2 * 2**30
    True
    """
    units = {"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
    match = re.fullmatch(_SIZE, text.lower())
    assert match is not None, text
    number, unit = match.groups()
    return int(number) * units.get(unit, 1)


def _disk(name: str, folder: Path | None) -> Check:
    if folder is None:
        return Check(name=name, found="not on this machine")
    free = shutil.disk_usage(folder).free
    found = f"{free / _GIB:.1f} GiB free in {folder}"
    return Check(
        name=name, found=found, problem=f"only {found}: free some, or use another folder" if free < _FREE_DISK else None
    )


def _key(settings: Settings) -> Check:
    from jobs.lake.identities import KEY_VARIABLE, key_file, key_problem, load_key

    if (problem := key_problem(settings.spark.master, settings.lake)) is not None:
        return Check(name="key", problem=problem)
    where = KEY_VARIABLE if KEY_VARIABLE in os.environ else str(key_file())
    if where != KEY_VARIABLE and not key_file().exists():
        return Check(name="key", found=f"made in {where} by the first run")
    try:
        load_key(create=False)
    except (ValueError, OSError) as error:
        return Check(name="key", problem=str(error))
    return Check(name="key", found=where)


def _lake(root: str) -> Check:
    if "://" in root:
        return _remote_lake(root)
    problem = _not_writable(Path(root))
    return Check(name="lake", found=root, problem=f"{problem}, or use another: --set lake=DIR" if problem else None)


def _remote_lake(root: str) -> Check:
    import deltalake

    try:
        deltalake.DeltaTable.is_deltatable(f"{root.rstrip('/')}/runs")
    except Exception as error:  # each store has errors of its own
        said = " ".join(str(error).split())
        return Check(name="lake", problem=f"{root} cannot be reached ({said}): check the address and its credentials")
    return Check(name="lake", found=f"{root} answers")


def _master(master: str) -> Check:
    match = re.fullmatch(r"spark://([^:,]+):(\d+).*", master)
    if match is None:
        return Check(name="Spark", found=master)
    return _reachable("Spark", match[1], int(match[2]), "start the master, or --set spark.master=local[*]")


def _ip_database(settings: Settings) -> Check:
    try:
        from jobs.ingest.privacy import read_database

        read_database(settings.privacy)
    except (ImportError, ValueError) as error:
        return Check(name="IP database", problem=str(error))
    return Check(name="IP database", found=str(settings.privacy.ip_database))


def _source(name: str, mapping: str, path: str | None) -> Check:
    label = f"source: {name}"
    try:
        find(mapping)
    except SettingsError as error:
        return Check(name=label, problem=f"sources.{name}.mapping: {error}")
    if path is None:
        # Not a fault: demo and simulate need none.
        beside = "sought beside the events" if name != "events" else f"no path yet: --set sources.{name}.path=PATH before a run"
        return Check(name=label, found=beside)
    if "://" in path:
        return Check(name=label, found=f"{path} (not looked at)")
    if not glob.glob(path):
        return Check(name=label, problem=f"nothing is at {path}: correct sources.{name}.path")
    unreadable = [one for one in glob.glob(path) if not os.access(one, os.R_OK)]
    problem = f"{unreadable[0]} cannot be read: chmod it, or run as its owner" if unreadable else None
    return Check(name=label, found=path, problem=problem)


def _postgres(name: str, sink: Postgres) -> Check:
    import psycopg

    label = f"sink: {name}"
    if sink.password_env is not None and sink.password_env not in os.environ:
        return Check(name=label, problem=f"its password is to come from {sink.password_env}, which is not set: export it")
    password = os.environ[sink.password_env] if sink.password_env is not None else None
    try:
        with psycopg.connect(sink.dsn, connect_timeout=_TIMEOUT, password=password) as connection:
            server = connection.info
            return Check(name=label, found=f"PostgreSQL {server.server_version // 10000} at {server.host}, {server.dbname}")
    except psycopg.Error as error:
        said = _PASSWORD.sub(r"\1***", " ".join(str(error).split()))
        return Check(name=label, problem=f"no connection ({said}): check sinks.{name}.dsn and that the server runs")


def _jdbc(name: str, sink: Jdbc) -> Check:
    """Not called: that takes a JVM."""
    from jobs.sinks.jdbc.database import Database

    label = f"sink: {name}"
    try:
        server = Database.of(sink).server
    except ValueError as error:
        return Check(name=label, problem=str(error))
    return Check(name=label, found=f"{server} (not called)")


def _redis(name: str, sink: Redis) -> Check:
    from jobs.sinks import redis

    try:
        quick = sink.model_copy(update={"timeout_s": min(sink.timeout_s, _TIMEOUT)})
        how = redis.login(quick)
        version = how.connect().info("server").get("redis_version", "?")
    except ValueError as error:
        return Check(name=f"sink: {name}", problem=str(error))
    return Check(name=f"sink: {name}", found=f"Redis {version} at {how.server}")


def _s3(name: str, sink: S3) -> Check:
    """Whether it can be listed; nothing is written."""
    from jobs.sinks.s3.bucket import Bucket

    try:
        bucket = Bucket.of(sink.model_copy(update={"timeout_s": min(sink.timeout_s, _TIMEOUT)}))
        bucket.objects()
    except ValueError as error:
        return Check(name=f"sink: {name}", problem=str(error))
    return Check(name=f"sink: {name}", found=f"{sink.url} at {bucket.server}")


def _folder(name: str, sink: Folder) -> Check:
    if "://" in sink.path:
        return Check(name=f"sink: {name}", found=f"{sink.path} (not looked at)")
    problem = _not_writable(Path(sink.path))
    return Check(name=f"sink: {name}", found=sink.path, problem=f"{problem}, or change sinks.{name}.path" if problem else None)


def _webhook(name: str, sink: Webhook) -> Check:
    """Nothing is sent: a receiver would take it for a delivery."""
    from jobs.sinks import webhook

    try:
        webhook.receiver(sink)
    except ValueError as error:
        return Check(name=f"sink: {name}", problem=str(error))
    return Check(name=f"sink: {name}", found=f"the URL in {sink.url_env} (not called)")


def _alert(variable: str) -> Check:
    """Nothing is sent: somebody would be called out for it."""
    if variable not in os.environ:
        return Check(name="alert", problem=f"its URL is to come from {variable}, which is not set: export it")
    return Check(name="alert", found=f"the URL in {variable} (not called)")


def _reachable(name: str, host: str, port: int, mend: str) -> Check:
    try:
        socket.create_connection((host, port), timeout=_TIMEOUT).close()
    except OSError as error:
        return Check(name=name, problem=f"{host}:{port} does not answer ({error}): {mend}")
    return Check(name=name, found=f"{host}:{port} answers")


def _nearest(path: str) -> Path | None:
    """The folder itself, or the one above it that is there already."""
    if "://" in path:
        return None
    place = Path(path).absolute()
    while not place.exists():
        place = place.parent
    return place


def _not_writable(path: Path) -> str | None:
    folder = _nearest(str(path))
    assert folder is not None
    if not folder.is_dir():
        return f"{folder} is not a folder: move it away"
    try:
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        return f"{folder} cannot be written ({error.strerror}): chown or chmod it"
