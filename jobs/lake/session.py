"""The Spark session, and the jars with which it reads logs that are kept in Delta tables.

The lake's own tables need no jars: see `jobs.lake.files`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pyspark.errors import PySparkRuntimeError

from conf.mapping import load_mapping
from conf.settings import Jdbc, Settings, find
from jobs.lake.identities import key_problem
from jobs.lake.java import java_problem

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# Large functions: a row of a wide table is made in one, which Java would else interpret for ever. The default room for
# compiled code, 240 MiB, is less than the plans of many nights in one process fill, and what is thrown away is compiled again.
_JAVA_OPTIONS = "-XX:-DontCompileHugeMethods -XX:ReservedCodeCacheSize=512m"
JAR_DIR = Path(sys.prefix) / "share" / "wherewhen" / "jars"
DELTA = "io.delta:delta-spark_4.0_2.13:4.4.0"
# Only Maven Central, asked once: without this file Ivy also searches a repository that is gone.
_IVY_SETTINGS = """<ivysettings><settings defaultResolver="central"/><resolvers>
<ibiblio name="central" m2compatible="true"/></resolvers></ivysettings>"""


def jars() -> list[str]:
    return sorted(str(jar) for jar in JAR_DIR.glob("*.jar"))


def _drivers(settings: Settings) -> list[str]:
    """The jars that sinks name; one that is missing keeps that sink alone from being served."""
    named = [Path(jar) for sink in settings.sinks.values() if isinstance(sink, Jdbc) for jar in sink.jars]
    return [str(jar.resolve()) for jar in named if jar.is_file()]


def fetch_jars() -> list[str]:
    """Resolve Delta's jars from Maven Central once and keep what Spark does not bring itself.

    Raises:
        ValueError: Maven Central cannot be reached.
    """
    import pyspark

    bundled = {re.sub(r"-\d.*", "", jar.name) for jar in (Path(pyspark.__file__).parent / "jars").glob("*.jar")}
    with tempfile.TemporaryDirectory() as scratch:
        settings = Path(scratch) / "ivysettings.xml"
        settings.write_text(_IVY_SETTINGS)
        spark_submit = Path(pyspark.__file__).parent / "bin" / "spark-submit"
        options = {"spark.jars.ivySettings": str(settings), "spark.jars.ivy": scratch, "spark.ui.enabled": "false"}
        command = [str(spark_submit), "--packages", DELTA]
        command += [part for key, value in options.items() for part in ("--conf", f"{key}={value}")]
        command += ["--class", "org.apache.spark.sql.types.DataTypes", "spark-internal"]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env={**os.environ, "SPARK_HOME": str(spark_submit.parents[1])}
        )
        found = list((Path(scratch) / "jars").glob("*.jar"))
        if not any("delta-spark" in jar.name for jar in found):
            last = (done.stderr.strip().splitlines() or ["no output"])[-1]
            raise ValueError(
                f"could not fetch {DELTA} from Maven Central ({last}); check the network or copy the jars to {JAR_DIR}"
            )
        JAR_DIR.mkdir(parents=True, exist_ok=True)
        for jar in found:
            artifact = re.sub(r"-\d.*", "", jar.name.split("_", 1)[1])
            if artifact not in bundled:
                shutil.copy2(jar, JAR_DIR / jar.name)
    return jars()


def start(settings: Settings, *, torch: bool = False) -> SparkSession:
    """The one Spark session of the process. `torch`: Python workers will run models, so they get torch from the start.

    Raises:
        ValueError: Java is missing, or a key that all machines share; says how to get it.
    """
    from pyspark.sql import SparkSession

    if (problem := java_problem()) is not None:
        raise ValueError(problem)
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    given = _given_by_spark_submit(settings)
    if (problem := key_problem(given.get("spark.master", settings.spark.master), settings.lake)) is not None:
        raise ValueError(problem)
    builder = SparkSession.builder
    options = _options(settings, given.get("spark.master", settings.spark.master))
    if torch and options["spark.master"].startswith("local"):
        # Elsewhere our code reaches a machine with its first task, after the daemon has started.
        options["spark.python.daemon.module"] = "jobs.lake.daemon"
    if "spark.jars" in given and "spark.jars" in options:
        given["spark.jars"] += f",{options['spark.jars']}"
    for key, value in {**options, **settings.spark.conf, **given}.items():
        builder = builder.config(key, value)
    with _jvm_chatter_kept_back():
        session = builder.getOrCreate()
    session.sparkContext.setLogLevel("OFF")
    _classes_kept(session)
    if writes_to_databases(settings):
        times_are_utc(session)
    if torch:
        # The imports take seconds; meanwhile the driver has plans to make.
        threading.Thread(target=_first_worker, args=(session,), daemon=True).start()
    return session


def writes_to_databases(settings: Settings) -> bool:
    """Whether a sink is written by its JDBC driver."""
    return any(isinstance(sink, Jdbc) for sink in settings.sinks.values())


def times_are_utc(session: SparkSession) -> None:
    """Of the driver's JVM: drivers write times as its own zone has them, whatever the session's is."""
    assert session._jvm is not None
    zones = session._jvm.java.util.TimeZone
    zones.setDefault(zones.getTimeZone("UTC"))


def _classes_kept(session: SparkSession) -> None:
    """PySpark asks the JVM for these by name for every Column that it makes; kept here they are asked for once."""
    for name in ("functions", "org.apache.spark.sql.functions", "PythonUtils", "PythonSQLUtils"):
        setattr(session._jvm, name, getattr(session._jvm, name))


def _first_worker(session: SparkSession) -> None:
    """By a query, as all later ones are: Spark starts another daemon, with imports of its own, for what an RDD asks of it."""
    # A session that was stopped before is no concern of a warm-up.
    with suppress(Exception):
        session.range(0, 1, numPartitions=1).mapInArrow(lambda batches: batches, "id BIGINT").collect()


def _given_by_spark_submit(settings: Settings) -> dict[str, str]:
    """What spark-submit was told, the master above all: it goes before the settings. Nothing where Python starts the JVM.

    That JVM runs already, so Delta's jars and those of drivers are added to its class path, as --jars would have done.
    """
    if "PYSPARK_GATEWAY_PORT" not in os.environ:
        return {}
    from pyspark import SparkConf, SparkContext

    SparkContext._ensure_initialized()
    jvm = SparkContext._jvm
    assert jvm is not None
    if more := [*jars(), *_drivers(settings)]:
        loader = jvm.java.lang.Thread.currentThread().getContextClassLoader()
        jvm.org.apache.spark.util.DependencyUtils.addJarsToClassPath(",".join(more), loader)
    given = dict(SparkConf().getAll())
    if given.get("spark.app.name") == Path(sys.argv[0]).name:
        del given["spark.app.name"]  # nobody gave it a name
    return given


@contextmanager
def _jvm_chatter_kept_back() -> Iterator[None]:
    """Send what the JVM says on stderr, for its whole life, to a file that nobody reads but this function.

    Errors reach us as exceptions anyway; the rest is noise in a night's log.

    Raises:
        ValueError: the JVM did not start; with its own last line.
    """
    sys.stderr.flush()
    with tempfile.TemporaryFile() as chatter, os.fdopen(os.dup(2), "w") as kept:
        os.dup2(chatter.fileno(), 2)
        try:
            yield
        except PySparkRuntimeError as error:
            chatter.seek(0)
            said = chatter.read().decode(errors="replace").strip().splitlines() or [str(error)]
            raise ValueError(f"Spark did not start: {said[-1]}; `wherewhen doctor` looks for the cause") from error
        finally:
            os.dup2(kept.fileno(), 2)


# Planning costs more with them, so only where a log is kept in a Delta table.
DELTA_OPTIONS = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
}


def reads_delta(settings: Settings) -> bool:
    """Whether a source is a Delta table, for which Spark needs Delta's jars."""
    mappings = [load_mapping(find(source.mapping)) for source in settings.sources.values()]
    feeds = [feed for mapping in mappings for feed in (mapping.events, *mapping.feeds.values())]
    return any(feed is not None and feed.format == "delta" for feed in feeds)


def _options(settings: Settings, master: str) -> dict[str, str]:
    more = [*jars(), *_drivers(settings)]
    here = {
        **({"spark.driver.extraClassPath": os.pathsep.join(more)} if more else {}),
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
    }
    # Workers elsewhere fetch the jars from the driver, and find it by its own name.
    elsewhere = {"spark.jars": ",".join(more)} if more else {}
    return {
        **(DELTA_OPTIONS if reads_delta(settings) else {}),
        "spark.app.name": "wherewhen",
        "spark.master": master,
        "spark.driver.memory": settings.spark.driver_memory,
        **(here if master.startswith("local") else elsewhere),
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.session.timeZone": "UTC",
        # The default, INT96, is read wrongly by everything but Spark.
        "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
        "spark.sql.shuffle.partitions": str(settings.spark.shuffle_partitions),
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        "spark.sql.execution.arrow.maxRecordsPerBatch": "20000",
        "spark.hadoop.mapreduce.fileoutputcommitter.marksuccessfuljobs": "false",
        # Writers leave a checksum with every page; a flipped bit on the disk is told, not taken for a value.
        "spark.hadoop.parquet.page.verify-checksum.enabled": "true",
        # Reading a table lists its files one by one; below so many a Spark job for it costs more.
        "spark.sql.sources.parallelPartitionDiscovery.threshold": "1000",
        "spark.driver.defaultJavaOptions": _JAVA_OPTIONS,
        "spark.executor.defaultJavaOptions": _JAVA_OPTIONS + (" -Duser.timezone=UTC" if writes_to_databases(settings) else ""),
        # The default holds fewer classes than a bootstrap and a night need: each plan would be compiled again and again.
        "spark.sql.codegen.cache.maxEntries": "10000",
        # Of each Column that Python makes the JVM would be told the line of code, in five calls more.
        "spark.python.sql.dataFrameDebugging.enabled": "false",
        "spark.python.worker.reuse": "true",
        "spark.sql.sources.partitionColumnTypeInference.enabled": "false",
    }
