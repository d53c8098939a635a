"""The wheel holds what the code reads: of files that are not Python it takes what pyproject.toml names."""

import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NAMED = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]


@pytest.mark.parametrize("package", ["conf", "jobs", "models", "dags"])
def test_every_file_is_in_the_wheel(package):
    found = [path for path in (ROOT / package).rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")]
    names = [str(path.relative_to(ROOT / package)) for path in found if not path.name.startswith(".")]
    # ** holds for no folder, too.
    patterns = [one for named in NAMED.get(package, ()) for one in (named, named.removeprefix("**/"))]
    assert [name for name in names if not any(fnmatch(name, pattern) for pattern in patterns)] == []
