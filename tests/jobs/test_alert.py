"""The alert against a real server: what it is sent, when again, and that nothing of it can fail a run or tell the URL."""

import json
import threading
import time
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from conf.settings import Alert, SettingsError, load_settings
from jobs import alert, cli
from jobs.lake import logs, runs

DAY = date(2024, 6, 16)
SECRET = "T00SECRET42"
DRIFT = {"subject": "slot", "measure": "psi", "value": 0.31234, "bound": 0.25}


class Receiver(ThreadingHTTPServer):
    """Answers with the next of `answers` (a status; "slow" and "cut" as they say), then with 200; keeps what it was sent."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers, self.got = [], []
        self.done = threading.Event()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/hook/{SECRET}"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((self.path, self.headers["Content-Type"], json.loads(body)))
        answer = self.server.answers.pop(0) if self.server.answers else 200
        if answer == "slow":
            self.server.done.wait(20)
        if answer in ("slow", "cut"):
            self.close_connection = True
            return
        self.send_response(answer)
        if answer == 302:
            self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self):
        self.server.got.append(("GET", self.path, None))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *args):
        pass


@pytest.fixture
def receiver(monkeypatch):
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    monkeypatch.setenv("HOOK", server.url)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield server
    server.done.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def settings(tmp_path):
    return load_settings(overrides=[f"lake={tmp_path / 'lake'}", "alert.url_env=HOOK"])


def test_one_post_tells_what_was_refused_and_what_is_past_its_bound(receiver, settings, caplog):
    caplog.set_level("INFO")
    alert.tell(settings, DAY, refusals=["evaluate: candidate c is refused: worse"], drift=[DRIFT], run_id="r7")
    [(path, kind, message)] = receiver.got
    assert path.endswith(SECRET) and kind == "application/json"
    assert message.pop("text") == (
        f"wherewhen, {settings.lake}, 2024-06-16: refused: evaluate: candidate c is refused: worse; "
        "drift: slot psi 0.3123, bound 0.25"
    )
    assert message == {
        "what": "refused", "day": "2024-06-16", "lake": settings.lake, "run_id": "r7",
        "refusals": ["evaluate: candidate c is refused: worse"], "drift": [DRIFT],
    }  # fmt: skip
    alert.tell(settings, DAY, drift=[DRIFT])
    assert receiver.got[1][2]["what"] == "drift" and "the alert was delivered" in caplog.text


def test_a_good_night_and_settings_without_a_url_tell_nobody(receiver, settings):
    alert.tell(settings, DAY)
    alert.tell(load_settings(), DAY, refusals=["no"])
    assert receiver.got == []


@pytest.mark.parametrize(
    ("answers", "tries", "said"),
    [
        ([500, 503], 3, None),
        (["cut", 429], 3, None),
        (["slow"], 2, None),
        ([500] * 9, 3, "answered 500"),
        ([404], 1, "answered 404"),
        ([302], 1, "answered 302"),
    ],
)
def test_what_may_pass_is_tried_again_and_what_will_not_is_not(answers, tries, said, receiver):
    receiver.answers = answers
    waits = []
    problem = alert.post(Alert(url_env="HOOK", timeout_s=0.5), {"a": 1}, waits.append)
    assert len(receiver.got) == tries and waits == [1.0, 2.0][: tries - 1]
    assert problem is None if said is None else said in problem
    assert all(kind != "GET" for kind, *_ in receiver.got), "a redirect is not followed"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (None, "HOOK, which is not set"),
        ("", "HOOK, which is not set"),
        (f"ftp://127.0.0.1/{SECRET}", "begins with https"),
        (f"file:///{SECRET}", "begins with https"),
        (SECRET, "begins with https"),
        (f"http://127.0.0.1:1/{SECRET}", "cannot be reached (Connection refused)"),
        (f"http://{SECRET}.invalid/", "cannot be reached"),
        (f"http://127.0.0.1:port/{SECRET}", "not valid"),
        (f"http://[::1/{SECRET}", "no valid URL"),
        (f"http://127.0.0.1/a b/{SECRET}\n", "not valid"),
    ],
)
def test_whatever_goes_wrong_is_a_warning_without_the_url(url, said, settings, monkeypatch, caplog):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.delenv("HOOK", raising=False) if url is None else monkeypatch.setenv("HOOK", url)
    quick = settings.model_copy(update={"alert": Alert(url_env="HOOK", attempts=1)})
    alert.tell(quick, DAY, refusals=["no"])
    [record] = caplog.records
    assert record.levelname == "WARNING" and "the alert was not delivered" in caplog.text and said in caplog.text
    assert SECRET.lower() not in caplog.text.lower()


def test_a_receiver_that_never_answers_costs_no_more_than_its_time(receiver):
    receiver.answers = ["slow", "slow"]
    began = time.monotonic()
    problem = alert.post(Alert(url_env="HOOK", timeout_s=0.3, attempts=2), {}, lambda seconds: None)
    assert "did not answer" in problem or "cannot be reached" in problem
    assert time.monotonic() - began < 5


def test_the_url_itself_is_no_setting():
    with pytest.raises(SettingsError, match=r"alert\.url: unknown key"):
        load_settings(overrides=["alert.url=https://hooks.example/T00"])


def test_a_run_that_is_refused_tells_it_and_leaves_no_trace_of_the_url(
    receiver, settings, spark, tmp_path, caplog, monkeypatch
):
    """The command itself: a day out of order ends with 3, whether or not somebody can be told."""
    caplog.set_level("INFO")
    logs.append(settings.lake, "runs", [runs.row("r", "ingest", DAY)])
    cli.register()
    words = ["--set", f"lake={settings.lake}", "--set", "alert.url_env=HOOK", "run", "--day", "2024-06-20", "--only", "ingest"]
    for url in (receiver.url, f"http://127.0.0.1:1/{SECRET}"):
        monkeypatch.setenv("HOOK", url)
        caplog.clear()
        assert cli.guarded(lambda: cli.app(words, standalone_mode=False)) == 3
    [(_, _, message)] = receiver.got
    assert "2024-06-17 would be skipped" in message["refusals"][0] and message["day"] == "2024-06-20"
    assert "the alert was not delivered" in caplog.text and SECRET not in caplog.text
    stored = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert len(stored) > 1000 and SECRET.encode() not in stored
