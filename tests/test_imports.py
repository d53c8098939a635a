"""Imports go one way, dags -> jobs.pipeline, conf, airflow.sdk and jobs -> models -> conf: read from the source."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = ("conf", "jobs", "models", "dags", "tests")
# What a scheduler's environment imports, which has neither Spark nor PyTorch.
STANDARD_LIBRARY_ONLY = (
    "jobs/__init__.py",
    "jobs/pipeline.py",
    "jobs/lake/java.py",
    "conf/__init__.py",
    "conf/contracts.py",
    *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "conf/tables").glob("*.py")),
)


def files(folder: str) -> list[str]:
    return sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob("*.py"))


def imported(path: str) -> Iterator[str]:
    """Full names of all that a file imports, wherever in it the import stands."""
    package = path.removesuffix("/__init__.py").removesuffix(".py").split("/")
    if not path.endswith("__init__.py"):
        package = package[:-1]
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            # `from jobs import runner` imports jobs.runner; a name that is no module does no harm.
            yield from (f"{module}.{alias.name}" for alias in node.names)


def within(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


@pytest.mark.parametrize("path", files("conf"))
def test_conf_imports_nothing_of_ours_but_itself(path):
    assert [name for name in imported(path) if within(name, "jobs", "models", "dags", "tests")] == []


@pytest.mark.parametrize("path", files("models"))
def test_models_import_conf_and_never_spark(path):
    # petastorm reads Parquet without a session; its Spark converter would need one.
    wrong = ("jobs", "dags", "tests", "pyspark", "delta", "petastorm.spark")
    assert [name for name in imported(path) if within(name, *wrong)] == []


@pytest.mark.parametrize("path", files("jobs"))
def test_jobs_import_models_and_conf(path):
    assert [name for name in imported(path) if within(name, "dags", "tests", "airflow")] == []


@pytest.mark.parametrize("path", files("dags"))
def test_dags_import_the_graph_the_settings_and_airflows_sdk(path):
    allowed = ("jobs.pipeline", "conf", "airflow.sdk", "wherewhen_command", *sys.stdlib_module_names)
    assert [name for name in imported(path) if not within(name, *allowed)] == []


@pytest.mark.parametrize("path", STANDARD_LIBRARY_ONLY)
def test_what_a_scheduler_imports_needs_the_standard_library_only(path):
    assert [name for name in imported(path) if not within(name, "conf", *sys.stdlib_module_names)] == []


def test_every_file_of_ours_is_looked_at():
    assert {"jobs/pipeline.py", "conf/tables/space.py", "dags/nightly.py"} <= {
        path for folder in OURS[:4] for path in files(folder)
    }
    assert list(imported("jobs/pipeline.py")), "imports are found at all"


def test_the_graph_and_the_settings_are_imported_without_spark():
    """Not from the source this time: nothing that they import may import Spark in turn."""
    program = (
        "import sys\n"
        "for name in ('pyspark', 'torch', 'pyarrow', 'pandas', 'deltalake'): sys.modules[name] = None\n"
        "import conf.contracts, conf.tables, conf.mapping, conf.settings, jobs.pipeline, jobs.cli\n"
        "jobs.pipeline.order(); conf.settings.load_settings()\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)
