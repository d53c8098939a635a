"""The demo: a simulated world, a bootstrapped history, a night through every step."""

from __future__ import annotations

import logging
import shutil
import sys
import time
from collections import defaultdict
from datetime import date, timedelta
from pathlib import Path

from conf.settings import Folder, Settings, Source
from jobs.lake import lock
from jobs.lake.session import start
from jobs.runner import Outcome, Watcher, run
from jobs.simulate import World, simulate

log = logging.getLogger("wherewhen")

END_DAY = date(2024, 6, 16)  # a Sunday: the night ends a full week
_EPOCHS = 3  # of the first training: enough to show it, and the demo is to be quick
WORLD = "demo"  # inside the lake: its presence says that a demo made the lake


def run_demo(settings: Settings, *, users: int, items: int, days: int, seed: int, watch: Watcher) -> None:
    """Replace the demo's lake, run it whole, print where to look.

    Raises:
        ValueError: the lake was not made by a demo.
        Refused: another process writes it.
    """
    began = time.monotonic()
    lake = Path(settings.lake)
    if _contents(lake) and not (lake / WORLD).is_dir():
        raise ValueError(f"{lake} was not made by a demo and is left alone; use another: wherewhen --set lake=DIR demo")
    with lock.held(settings.lake, "demo"):
        _clear(lake)
        settings = _demo_settings(settings, lake)
        spark = start(settings, torch=True)
        log.info("demo: %d users, %d items, %d days that end with %s", users, items, days, END_DAY)
        simulate(spark, lake / WORLD, World(users=users, items=items, days=days, end_day=END_DAY, seed=seed))
        log.info("  %-12s %6.1f s  %s", "simulate", time.monotonic() - began, f"{lake / WORLD}/landing")
        outcomes = []
        for number, day in enumerate(END_DAY - timedelta(days=back) for back in (1, 0)):
            log.info("%s %s", "bootstrap up to" if number == 0 else "night of", day)
            outcomes.append(run(spark, settings, day, bootstrap=number == 0, watch=watch))
    _tell(settings, outcomes, time.monotonic() - began)


def _contents(lake: Path) -> list[Path]:
    """What a lake holds beside its lock; the demo's mark last."""
    found = [path for path in lake.glob("*") if path.name not in lock.FILES]
    return sorted(found, key=lambda path: path.name == WORLD)


def _clear(lake: Path) -> None:
    """Everything but the lock, which is held; the mark goes last and is there again at once."""
    for path in _contents(lake):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    (lake / WORLD).mkdir()


def _demo_settings(settings: Settings, lake: Path) -> Settings:
    sources = {**settings.sources, "events": Source(mapping="conf/sources/simulated.yaml", path=str(lake / WORLD / "landing"))}
    sinks = settings.sinks or {"files": Folder(kind="csv", path="out/recommendations")}
    train = settings.train.model_copy(update={"epochs": min(settings.train.epochs, _EPOCHS)})
    return settings.model_copy(update={"sources": sources, "sinks": sinks, "train": train})


def _tell(settings: Settings, outcomes: list[Outcome], seconds: float) -> None:
    """What a newcomer sees last: where the time went, a list with reasons, what to try."""
    from jobs.query import answer, render

    took: dict[str, float] = defaultdict(float)
    for report in (report for outcome in outcomes for report in outcome.reports):
        took[report.step] += report.seconds
    slowest = sorted(took.items(), key=lambda pair: -pair[1])[:4]
    log.info("done in %.0f s; most of it in %s", seconds, ", ".join(f"{step} {spent:.0f} s" for step, spent in slowest))
    for outcome in outcomes:
        for refusal in outcome.refusals:
            log.info("refused on %s: %s", outcome.days.last, refusal)
    sample = (
        "SELECT user_id, rank, item_id, round(score, 2) AS score, reason FROM recommendations "
        "WHERE slot = 'weekday_morning' AND rank <= 3 AND user_id IN "
        "(SELECT user_id FROM recommendations WHERE slot = 'weekday_morning' "
        "GROUP BY user_id ORDER BY max(score) DESC LIMIT 3) "
        "ORDER BY user_id, rank"
    )
    sys.stdout.write(render(answer(settings, sample), "table"))
    sys.stdout.write(
        f"\nreport   {settings.report.page(END_DAY)}\n"
        + "".join(f"lists    {sink.path}\n" for sink in settings.sinks.values() if isinstance(sink, Folder))
        + "try      wherewhen tables\n"
        "         wherewhen describe user_interests\n"
        '         wherewhen query "select user_id, slot, rank, item_id, score, reason from recommendations limit 5"\n'
    )
