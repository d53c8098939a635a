"""What `make airflow` starts, tells and ends; in place of Airflow a program that answers as it does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.clusters import free_port

ROOT = Path(__file__).parents[2]
STUB = f"""#!{sys.executable}
import json, os, subprocess, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
home = Path(os.environ["AIRFLOW_HOME"])
if os.environ.get("BROKEN"):
    sys.exit("cannot start")
(home / "simple_auth_manager_passwords.json.generated").write_text(json.dumps({{"admin": "word"}}))
(home / "pids").write_text(f"{{os.getpid()}} {{subprocess.Popen(['sleep', '300']).pid}}")
class Answers(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
HTTPServer(("127.0.0.1", int(os.environ["AIRFLOW__API__PORT"])), Answers).serve_forever()
"""


@pytest.fixture
def start(tmp_path):
    """start(**environment): the script, with interrupts ignored, as a shell starts what is in its background."""
    (tmp_path / "bin").mkdir()
    stub = tmp_path / "bin" / "airflow"
    stub.write_text(STUB)
    stub.chmod(0o755)
    running = []

    def started(**more):
        given = {
            "AIRFLOW_HOME": str(tmp_path / "a home"), "PATH": f"{stub.parent}{os.pathsep}{os.environ['PATH']}",
            "AIRFLOW__API__PORT": str(free_port()),
        }  # fmt: skip
        process = subprocess.Popen(
            ["sh", "-c", "trap '' INT; exec \"$0\" dags/local_airflow.py", sys.executable],
            cwd=ROOT,
            env={**os.environ, **given, **more},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        running.append(process)
        return process

    yield started
    for process in running:
        process.kill()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_it_tells_address_and_login_and_ends_all_that_it_started(start, tmp_path, how):
    port = free_port()
    process = start(AIRFLOW__API__PORT=str(port))
    assert "starting Airflow" in process.stdout.readline()
    assert process.stdout.readline() == f"http://127.0.0.1:{port}  login admin, password word\n"
    assert "trigger nightly" in process.stdout.readline()
    home = tmp_path / "a home"
    assert {path.stat().st_mode & 0o077 for path in (home, *home.iterdir())} == {0}, "the login is its owner's"
    process.send_signal(how)
    assert process.wait(30) == 0
    for pid in (home / "pids").read_text().split():
        stat = Path(f"/proc/{pid}/stat")
        assert not stat.exists() or stat.read_text().split()[2] == "Z"


def test_what_keeps_it_from_starting_is_said(start):
    busy = start()
    busy.stdout.readline()
    busy.stdout.readline()
    port = Path(f"/proc/{busy.pid}/environ").read_text().partition("AIRFLOW__API__PORT=")[2].split("\0")[0]
    other = start(AIRFLOW__API__PORT=port)
    assert other.wait(30) == 1 and other.stderr.read() == f"error: port {port} is taken: make airflow AIRFLOW__API__PORT=8081\n"
    busy.send_signal(signal.SIGTERM)
    busy.wait(30)
    broken = start(BROKEN="yes")
    assert broken.wait(30) == 1 and "Airflow did not start" in broken.stderr.read()
