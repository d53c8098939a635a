"""What a step's rows are made by: its code and its settings, found by reading the source. Needs no JVM.

A step depends on its own module and on all of ours that it imports, directly or not. `conf.tables` and
`conf.settings` are imported by nearly all; what counts of them are the contracts of the tables that the step
writes, and the sections that its code names.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from conf.contracts import Table
from conf.settings import Settings, digest
from conf.tables import TABLES
from jobs.lake.runs import release
from jobs.pipeline import Step

ROOT = Path(__file__).parents[1]
_OURS = ("conf", "jobs", "models")
_DATA = ("conf.tables", "conf.settings")
_SETTING = re.compile(rb"settings\s*\.\s*(\w+)")
_SECTIONS = frozenset(Settings.model_fields) | {"mapping"}


@dataclass(frozen=True, kw_only=True)
class Module:
    """A source file: a digest of its bytes, the modules of ours that it imports, the settings' sections it names."""

    digest: str
    imports: frozenset[str]
    sections: frozenset[str]


@cache
def code_version(step: Step) -> str:
    """The release, and a hash of the code and contracts that the step's rows are made by."""
    parts = [f"{name} {_module(name).digest}" for name in closure(f"jobs.{step.name}")]
    parts += [digest(_shape(TABLES[name])) for name in step.writes]
    return f"{release()}+{hashlib.sha256(' '.join(parts).encode()).hexdigest()[:12]}"


def settings_hash(step: Step, settings: Settings) -> str:
    """Hash of the settings that the step's code names, but for those that change no row."""
    return settings.hash(sections(step))


@cache
def sections(step: Step) -> frozenset[str]:
    """The sections of the settings (and `mapping`) that the step's code names."""
    return frozenset(section for name in closure(f"jobs.{step.name}") for section in _module(name).sections)


@cache
def closure(name: str) -> tuple[str, ...]:
    """The module and all of ours that it imports, directly or not, but for those that are data; sorted."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        module = waiting.pop()
        if module not in found and module not in _DATA:
            found.add(module)
            waiting += _module(module).imports
    return tuple(sorted(found))


@cache
def _module(name: str) -> Module:
    path = _path(name)
    assert path is not None, f"there is no module {name}"
    source = path.read_bytes()
    return Module(
        digest=hashlib.sha256(source).hexdigest()[:16],
        imports=frozenset(module for node in _statements(ast.parse(source)) for module in _imported(node)),
        # Wherever settings are handed on, they keep their name; a section stands behind it and a point.
        sections=frozenset(found.decode() for found in _SETTING.findall(source)) & _SECTIONS,
    )


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """All statements below, those of functions and blocks included; expressions hold no imports."""
    for field in ("body", "orelse", "finalbody", "handlers", "cases"):
        below = getattr(node, field, ())
        for one in below if isinstance(below, list) else ():
            yield one
            yield from _statements(one)


def _path(name: str) -> Path | None:
    place = ROOT.joinpath(*name.split("."))
    return next((path for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file()), None)


def _imported(node: ast.AST) -> Iterator[str]:
    """`from jobs import logs` imports the module jobs.logs, `from jobs.logs import read` the module jobs.logs."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name.split(".")[0] in _OURS)
    elif isinstance(node, ast.ImportFrom) and node.module is not None and node.module.split(".")[0] in _OURS:
        for alias in node.names:
            inner = f"{node.module}.{alias.name}"
            yield inner if _path(inner) is not None else node.module


def _shape(contract: Table) -> list[object]:
    """What of a contract changes rows: not its comments."""
    columns = [(one.name, one.type, one.nullable) for one in contract.columns]
    return [contract.kind, columns, contract.key, contract.owner, dict(contract.checks), contract.keep_keyframes]
