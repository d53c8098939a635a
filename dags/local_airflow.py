"""`make airflow`: runs `airflow standalone`, tells its address and login, and ends it with all that it started.

No DAG; Airflow passes over it (.airflowignore).
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

START_SECONDS, END_SECONDS = 300, 60


def main() -> int:
    home, port = Path(os.environ["AIRFLOW_HOME"]), int(os.environ["AIRFLOW__API__PORT"])
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            return failed(f"port {port} is taken: make airflow AIRFLOW__API__PORT=8081")
    # In a shell's background it is ignored, here and in what is started.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for ends in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ends, lambda *_: sys.exit(0))
    os.umask(0o077)  # the login is in files below
    home.mkdir(parents=True, exist_ok=True)
    log = home / "standalone.log"
    said(f"starting Airflow, which takes a minute; what it says is in {log}")
    # A session of its own: it is ended here, and by nothing else.
    with log.open("w") as out:
        process = subprocess.Popen(["airflow", "standalone"], stdout=out, stderr=out, start_new_session=True)
    try:
        address = f"http://127.0.0.1:{port}"
        if not answers(address, process):
            return failed(f"Airflow did not start: {log} says why")
        logins = json.loads((home / "simple_auth_manager_passwords.json.generated").read_text())
        for name, word in logins.items():
            said(f"{address}  login {name}, password {word}")
        said("trigger nightly with the day that is to be run, 2024-06-16 after make demo; Ctrl-C ends it")
        return process.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        end(process)


def answers(address: str, process: subprocess.Popen[bytes]) -> bool:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"{address}/api/v2/version", timeout=2).close()
        except OSError:
            time.sleep(1)
        else:
            return True
    return False


def end(process: subprocess.Popen[bytes]) -> None:
    """As Ctrl-C does, which its parts know; what is left after a while by force."""
    for how in (signal.SIGINT, signal.SIGKILL):
        try:
            os.killpg(process.pid, how)
            process.wait(END_SECONDS)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue


def said(words: str) -> None:
    sys.stdout.write(f"{words}\n")
    sys.stdout.flush()


def failed(words: str) -> int:
    sys.stderr.write(f"error: {words}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
