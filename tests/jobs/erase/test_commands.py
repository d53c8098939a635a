"""erase and subject as commands: what they print, how they end, and that they start no JVM."""

import json
import os
import subprocess
import sys

import pytest

from jobs import cli
from jobs.lake import logs
from jobs.lake.erasure import OF_TEXTS


def options(lake):
    return ["--set", f"lake={lake.root}", "--set", f"report.path={lake.settings.report.path}"]


def command(lake, *words):
    return subprocess.run(
        [sys.executable, "-m", "jobs.cli", *options(lake), *words],
        capture_output=True, text=True, check=False, env={**os.environ, "JAVA_HOME": "/nowhere"},
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


def test_a_stranger_gets_a_tombstone_and_mistakes_are_one_line(plant, monkeypatch, capsys):
    lake = plant()
    done = command(lake, "erase", "--user", "nobody'; --")
    assert done.returncode == 0 and "no table holds a row of this user; from now on none is taken in" in done.stderr
    assert {row["status"] for row in logs.read(lake.root, "erasures")} == {"begun", "done"}
    # In this process: one of its own is seconds of imports, and these do nothing after them.
    monkeypatch.setenv("WHEREWHEN_KEY", "ab" * 32)
    for user, said in (("", "--user is empty"), ("x", "is not the key that")):
        monkeypatch.setattr(sys, "argv", ["wherewhen", *options(lake), "erase", "--user", user])
        with pytest.raises(SystemExit) as failed:
            cli.main()
        told = capsys.readouterr().err
        assert failed.value.code == 1 and said in told and len(told.splitlines()) == 1, told
