"""A self-contained page: our style and our script inside it, whatever comes from data escaped, nothing fetched."""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from conf.contracts import ANY_SLOT, SLOTS
from jobs.costs import duration

_JOBS = Path(__file__).parents[1]


def environment() -> jinja2.Environment:
    """Templates beside the jobs. What comes from data is escaped; an undefined name is an error."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_JOBS),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        count=_count, share=_share, moment=_moment, slot=_slot, slot_number=_slot_number, number=_number, seconds=duration,
        decimals=_decimals,
    )  # fmt: skip
    made.globals.update(seconds=duration, decimals=_decimals)  # to be handed to macros
    return made


def page(template: str, day: date, content: dict[str, Any]) -> str:
    """The page of one template. No script but ours runs in it, whatever the data holds: the browser compares its hash."""
    script = (_JOBS / "seeing/pictures.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        environment()
        .get_template(f"seeing/{template}")
        .render(day=day, made_at=datetime.now(UTC), script=Markup(script), script_hash=digest, **content)
    )


def _count(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def _number(value: float) -> str:
    """Three digits, more where it is larger."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _decimals(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _share(value: float) -> str:
    return f"{100 * value:.1f}%"


def _moment(value: datetime | None) -> str:
    return "–" if value is None else f"{value:%Y-%m-%d %H:%M} UTC"


def _slot(slot: str) -> str:
    return "any time" if slot == ANY_SLOT else slot.replace("_", " ") + "s"


def _slot_number(slot: str) -> int:
    """The part of the week as the style sheet numbers it."""
    return (ANY_SLOT, *SLOTS).index(slot)
