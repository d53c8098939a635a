"""erase and subject as commands: what they print, how they end, and that they start no JVM."""

import json
import os
import subprocess
import sys

from jobs.lake import logs
from jobs.lake.erasure import OF_TEXTS


def command(lake, *words, **environment):
    settings = ["--set", f"lake={lake.root}", "--set", f"report.path={lake.settings.report.path}"]
    return subprocess.run(
        [sys.executable, "-m", "jobs.cli", *settings, *words],
        capture_output=True, text=True, check=False, env={**os.environ, "JAVA_HOME": "/nowhere", **environment},
    )  # fmt: skip


def test_what_is_handed_out_is_what_is_removed(plant, tmp_path):
    lake = plant()
    told = command(lake, "subject", "--user", lake.user)
    held = json.loads(told.stdout)
    assert told.returncode == 0 and lake.pseudonym not in told.stdout and "sealed" not in held["tables"]["vault"][0]
    assert {name: len(rows) for name, rows in held["tables"].items() if name not in OF_TEXTS} == {
        name: count for name, count in lake.mine.items() if count and name not in OF_TEXTS
    }
    assert {row["user_id"] for row in held["tables"]["events"]} == {lake.user}
    assert {row["text"] for row in held["tables"]["text_semantics"]} == {"mine only", "both of us", "the item's"}
    hashes = {row["text_hash"] for row in held["tables"]["text_semantics"]}
    assert {row["text_hash"] for row in held["tables"]["text_mentions"]} == hashes and len(hashes) == 3

    erased = command(lake, "erase", "--user", lake.user, "--output", str(tmp_path / "cert.json"))
    assert (erased.returncode, erased.stdout) == (0, f"{tmp_path / 'cert.json'}\n"), erased.stderr
    assert lake.user not in erased.stderr and "0 hits" in erased.stderr
    told = command(lake, "subject", "--user", lake.user, "--output", str(tmp_path / "left"))
    assert told.returncode == 0 and [one.name for one in (tmp_path / "left").iterdir()] == ["subject.json"]
    left = json.loads((tmp_path / "left" / "subject.json").read_text())
    assert [one["status"] for one in left["erasures"]] == ["begun", "done"]


def test_a_stranger_gets_a_tombstone_and_mistakes_are_one_line(plant):
    lake = plant()
    done = command(lake, "erase", "--user", "nobody'; --")
    assert done.returncode == 0 and "no table holds a row of this user; from now on none is taken in" in done.stderr
    assert {row["status"] for row in logs.read(lake.root, "erasures")} == {"begun", "done"}
    for words, said in ((("--user", ""), "--user is empty"), (("--user", "x"), "is not the key that")):
        failed = command(lake, "erase", *words, WHEREWHEN_KEY="ab" * 32)
        assert failed.returncode == 1 and said in failed.stderr and len(failed.stderr.splitlines()) == 1, failed.stderr
