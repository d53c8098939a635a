"""Takes one person out of everything that the pipeline keeps, and certifies it by a scan of the bytes on disk.

Order, so that a kill at any point leaves nothing half certified and the same command finishes it:
the tombstone, which keeps the person's rows out from then on; the tables, each in commits of its own;
the row of `runs` that lets everybody read the new versions; then whatever still holds the person:
old files, sinks, landing, report; then the scan; then the certificate.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conf.settings import Settings
from conf.tables import TABLES
from jobs.erase import work as working
from jobs.erase.scan import Findings, holds, scan
from jobs.erase.trained import PRECISION, versions_trained
from jobs.erase.work import Work
from jobs.lake import logs
from jobs.lake.disk import write_whole
from jobs.lake.erasure import Visible, erase_rows, own_texts, shorten_log, stored
from jobs.lake.identities import load_tombstone_key
from jobs.lake.lock import held
from jobs.lake.person import WITHOUT_PERSONS, Person, check_key
from jobs.lake.sweep import delete
from jobs.lake.tombstones import BEGUN, DONE, TABLE, Tombstones, refuse_other_key, tombstone_of

log = logging.getLogger("wherewhen")

_LIMITS = [
    "what left through a sink that is no longer in the settings, or was copied onwards, is not known here",
    "a database server's logs, replicas and backups, what other files than PostgreSQL's keep of deleted rows, and backups of "
    "the lake, are their owners'; so are versions that an S3 bucket keeps of what was removed, and parts of uploads cut off",
    "temporary files of killed runs lie outside the lake, where Spark was told to put them or, of `features`, in $TMPDIR",
]


@dataclass(frozen=True, kw_only=True)
class Erased:
    """What an erasure came to. `rows`: removed from the lake's tables."""

    certificate: Path
    rows: int


def erase(settings: Settings, raw_id: str, output: Path | None = None) -> Erased:
    """Erase a person and write the certificate, to `output` or into the lake.

    Raises:
        ValueError: no such lake, another key, a sink that cannot be reached, or the scan still finds the person.
        Refused: another process writes the lake.
    """
    root, person = lake_folder(settings), Person.of(raw_id)
    check_key(root)
    with held(root, "erase"):
        return _erase(settings, root, person, output)


def _erase(settings: Settings, root: str, person: Person, output: Path | None) -> Erased:
    began = time.monotonic()
    erasure_id, known = _bury(root, person)
    done = working.recorded(root, erasure_id)
    if done is None or (settings.privacy.erase_landing and not done.landing):
        done = _erase_tables(settings, root, erasure_id, person, known, began)
    _delete_files(root, person, done)
    elsewhere = {
        "report": _report_removed(settings, person),
        "sinks": _sinks_erased(settings, person, frozenset(done.text_hashes)),
        "landing": _landing_erased(settings, person),
    }
    found = _scan(settings, root, person)
    certificate = _certificate(erasure_id, done, elsewhere, found, person)
    path = output or Path(root) / working.FOLDER / f"{erasure_id}.json"
    write_whole(path, json.dumps(certificate, indent=1, ensure_ascii=False) + "\n")
    row = {"status": DONE, "rows_removed": done.rows, "details": json.dumps(certificate), "recorded_at": logs.now()}
    logs.append(root, TABLE, [{"erasure_id": erasure_id, **tombstone_of(person.raw_id, load_tombstone_key()), **row}])
    working.forget(root, erasure_id)
    return Erased(certificate=path, rows=sum(done.rows.values()))


def lake_folder(settings: Settings) -> str:
    """The lake's folder.

    Raises:
        ValueError: it is not on this machine, or there is none.
    """
    if "://" in settings.lake:
        raise ValueError(f"{settings.lake} is no folder of this machine: mount it, as all bytes of it must be looked through")
    if not any((Path(settings.lake) / name / "_delta_log").is_dir() for name in TABLES):
        raise ValueError(f"there is no lake at {settings.lake}; set another with --set lake=FOLDER")
    return str(Path(settings.lake).absolute())


def _bury(root: str, person: Person) -> tuple[str, Tombstones]:
    """The tombstone, before anything else; gives the erasure's id, that of an unfinished one of the same person first.

    Raises:
        ValueError: earlier tombstones were made under another key.
    """
    key = load_tombstone_key()
    rows = logs.read(root, TABLE)
    refuse_other_key(rows, key)
    mine = tombstone_of(person.raw_id, key)
    known = Tombstones(hashes=frozenset([mine["tombstone"]]), pieces=frozenset([mine["pieces"]]), key=key)
    finished = {row["erasure_id"] for row in rows if row["status"] == DONE}
    for row in rows:
        if row["tombstone"] == mine["tombstone"] and row["erasure_id"] not in finished:
            log.info("going on with an erasure that was stopped")
            return row["erasure_id"], known
    erasure_id = f"erasure-{uuid.uuid4().hex}"
    logs.append(root, TABLE, [{"erasure_id": erasure_id, **mine, "status": BEGUN, "recorded_at": logs.now()}])
    return erasure_id, known


def _erase_tables(settings: Settings, root: str, erasure_id: str, person: Person, known: Tombstones, began: float) -> Work:
    from models import registry

    # A training that was ended has learnt of the person; without these rows it would be another version anyway.
    shutil.rmtree(Path(root) / registry.FOLDER / registry.CHECKPOINTS, ignore_errors=True)
    visible = Visible.of(root)
    models = versions_trained(root, person, settings.mapping.target_events)
    hashes = own_texts(root, visible, person)
    details: dict[str, Any] = {}
    if settings.privacy.erase_landing:
        details["fingerprints"] = _prints(settings, root, known)
    changes = erase_rows(root, visible, person, hashes)
    done = Work.of(changes, models=models, text_hashes=sorted(hashes), landing=settings.privacy.erase_landing)
    working.save(root, erasure_id, done)
    working.record(root, erasure_id, done, visible, details, time.monotonic() - began)
    for name, rows in done.rows.items():
        if rows:
            log.info("  %-22s %8s rows removed", name, f"{rows:,}")
    if not any(done.rows.values()):
        log.info("  no table holds a row of this user; from now on none is taken in")
    return done


def _prints(settings: Settings, root: str, known: Tombstones) -> dict[str, Any]:
    from jobs.erase.landing import prints_without
    from jobs.lake.session import start

    ingested = logs.read(root, "runs", "step = 'ingest' AND status = 'done'")
    if not ingested:
        return {}
    return prints_without(start(settings), settings, known, min(row["first_day"] for row in ingested))


def _delete_files(root: str, person: Person, done: Work) -> None:
    for name, doomed in done.doomed.items():
        folder = Path(root) / name
        there = [folder / path for path in doomed]
        there += [path.with_name(f".{path.name}.crc") for path in there]
        delete((path for path in there if path.exists()), folder, dry_run=False)
    visible = Visible.of(root)
    for name in TABLES:
        if stored(root, name) is None:
            continue
        written = Path(root) / name / "_delta_log"
        if any(holds(path, person) for path in written.rglob("*") if path.is_file()):
            shorten_log(root, name, visible)


def _report_removed(settings: Settings, person: Person) -> str:
    """Pages show some users by the beginning of their pseudonyms."""
    shown = [path for path in settings.report.pages() if person.pseudonym[:8].encode() in path.read_bytes()]
    for path in shown:
        path.unlink()
    if not shown:
        return "did not show the person"
    log.info("  the report showed the person and is removed: `wherewhen report` makes it again")
    return f"removed: {', '.join(path.name for path in shown)} showed the person"


def _sinks_erased(settings: Settings, person: Person, text_hashes: frozenset[str]) -> dict[str, int]:
    """Rows removed per sink; all are tried before one fails.

    Raises:
        ValueError: a sink that cannot be reached or written.
    """
    from jobs.sinks import module_of, reach

    removed, failed = {}, []
    for name, sink in settings.sinks.items():
        try:
            reach(settings, sink)
            removed[name] = module_of(sink).erase(sink, person, text_hashes)
            left = sum(1 for _ in module_of(sink).rows_of(sink, person))
        except (ValueError, OSError) as error:
            failed.append(f"sink {name} failed: {' '.join(str(error).split())}")
            continue
        if left:
            failed.append(f"sink {name} still holds {left} rows of the person")
        log.info("  sink %-17s %8s rows removed", name, f"{removed[name]:,}")
    if failed:
        raise ValueError("; ".join(failed) + "; nothing is certified yet: mend it and give the same command again")
    return removed


def _landing_erased(settings: Settings, person: Person) -> dict[str, Any]:
    """
    Raises:
        ValueError: a landing file cannot be written anew, or holds the person still.
    """
    if not settings.privacy.erase_landing:
        return {"erased": False, "said": "left as they are, by setting; the tombstone keeps the person's rows out"}
    from jobs.erase.landing import landing_files
    from jobs.lake.session import start

    files = landing_files(start(settings), settings)
    removed = {str(file.path): count for file in files if (count := file.take_out(person))}
    if left := [str(file.path) for file in files if file.holds(person)]:
        raise ValueError(f"records of the person are still in {_some(left)}; nothing is certified")
    log.info("  landing: %d records removed from %d files", sum(removed.values()), len(removed))
    return {"erased": True, "records_removed": removed}


def _scan(settings: Settings, root: str, person: Person) -> Findings:
    """
    Raises:
        ValueError: the person is found; names the files.
    """
    from conf.settings import Folder
    from jobs.sinks.folder import deliveries

    lake = Path(root)
    outside = [one for sink in settings.sinks.values() if isinstance(sink, Folder) for one in deliveries(Path(sink.path))]
    index = [] if settings.report.index is None else [settings.report.index]
    found = scan([lake, *settings.report.pages(), *index, *outside], lake, person, outside)
    log.info("  scan: %s files, %s bytes, %d hits", f"{found.files:,}", f"{found.bytes:,}", len(found.hits))
    if found.mentions:
        log.warning("  something else is called as the person is, see the certificate: %s", _some(found.mentions))
    if found.hits:
        raise ValueError(
            f"the person is still found in {_some(found.hits)}; nothing is certified: look into these files, "
            "then give the same command again"
        )
    return found


def _some(paths: list[str]) -> str:
    return ", ".join(paths[:5]) + (f" and {len(paths) - 5} more" if len(paths) > 5 else "")


def _certificate(erasure_id: str, done: Work, elsewhere: dict[str, Any], found: Findings, person: Person) -> dict[str, Any]:
    return {
        "erasure_id": erasure_id,
        "certified_at": logs.now().isoformat(),
        "rows_removed": done.rows,
        "blotted_out_in_logs": done.blotted,
        "versions": done.versions,
        "older_versions": "those that held the person cannot be read any more",
        "kept_as_they_name_nobody": WITHOUT_PERSONS,
        "models_trained_on_the_person": done.models,
        "models_precision": PRECISION,
        **elsewhere,
        "scan": found.as_dict(person),
        "limits": _LIMITS,
    }
