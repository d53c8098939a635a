"""Deliveries to a real server that speaks S3: one night or the next, whoever reads, and one clear line where it fails."""

import csv
import io
import json
import re
import ssl
import threading
import time
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from conf.settings import S3, Folder, SettingsError, load_settings
from jobs import doctor
from jobs import export as exporting
from jobs.lake import commits, logs
from jobs.lake.person import Person
from jobs.sinks import s3
from jobs.sinks.s3.bucket import Bucket
from tests.jobs import s3_server
from tests.jobs.delivering import DAY, NASTY, delivery, lists
from tests.jobs.test_export import ENTRY, night, read_csv, seal, write

KEY = ("user_id", "rank")
KINDS = ["parquet", "csv", "json"]
WIDE = (
    "user_id string, rank int, item_id string, score double, near float, seen bigint, is_new boolean, day date, "
    "at timestamp, tags array<struct<name:string,weight:double,at:timestamp>>, more map<string,array<string>>"
)
README = (Path(__file__).parents[2] / "README.md").read_text()


@pytest.fixture(scope="module")
def server():
    with s3_server.s3() as url:
        s3_server.make_bucket(url, "shop")
        yield url


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv("LISTS_KEY_ID", "AKIA-right-22")
    monkeypatch.setenv("LISTS_SECRET", "right-9431")


@pytest.fixture
def make_sink(server, request):
    """A sink whose prefix no other test uses."""

    def make(kind="parquet", endpoint=server, **more):
        prefix = re.sub(r"\W+", "_", request.node.name)
        given = {"region": None, "timeout_s": 5.0, "key_id_env": "LISTS_KEY_ID", "secret_env": "LISTS_SECRET"} | more
        return S3(kind="s3", url=given.pop("url", f"s3://shop/{prefix}/lists"), format=kind, endpoint=endpoint, **given)

    return make


def current(sink):
    return json.loads(s3_server.got(f"{sink.endpoint}/{sink.url.removeprefix('s3://')}/current.json"))


def read(sink, now=None):
    """As a reader finds them: what `current.json` names, each file as it is."""
    found = []
    for file in (now or current(sink))["files"]:
        content = s3_server.got(f"{sink.endpoint}/{sink.url.removeprefix('s3://')}/{file['path']}")
        if sink.format == "parquet":
            rows = pq.read_table(io.BytesIO(content)).to_pylist()
        elif sink.format == "csv":
            rows = list(csv.DictReader(io.StringIO(content.decode(), newline="")))
        else:
            rows = [json.loads(line) for line in content.decode().splitlines()]
        assert len(rows) == file["rows"]
        found += rows
    return found


def keys(sink):
    found = Bucket.of(sink).objects()
    return {one.path.removeprefix(sink.url.removeprefix("s3://") + "/") for one in found}


def folders(sink):
    return {name.partition("/")[0] for name in keys(sink)} - {"current.json"}


def test_parquet_and_json_hold_every_type_and_character(spark, make_sink):
    at = datetime(2024, 1, 31, 23, 59, 59, 123456, tzinfo=UTC)
    nested = [{"name": 'a "b"\n,', "weight": 0.1, "at": at}, {"name": None, "weight": None, "at": None}]
    rows = [
        (text, n, text[::-1], n / 7, 0.1, 2**60 + n, n % 2 == 0, DAY, at, nested, {"a": [text, None]})
        for n, text in enumerate(NASTY)
    ] + [("none", 9, *[None] * 9), ("empty", 10, "", 1e-300, None, -1, None, date(1, 1, 1), None, [], {})]
    frame = spark.createDataFrame(rows, WIDE).repartition(3)
    for kind in ("parquet", "json"):
        sink = make_sink(kind, url=f"{make_sink().url}/{kind}")
        sent = s3.deliver(delivery(frame, KEY), sink)
        assert (sent.rows, sent.how, current(sink)["checksum"]) == (len(rows), "everything", sent.checksum)
        assert s3.check(delivery(frame, KEY), sink) is None
        found = {row["rank"]: row for row in read(sink)}
        assert set(found) == {row[1] for row in rows} and len(current(sink)["files"]) == 3
        for row in rows:
            given = dict(zip(frame.columns, row, strict=True))
            if kind == "parquet":
                given["more"] = given["more"] and list(given["more"].items())
                given["near"] = given["near"] and pytest.approx(given["near"])
                assert found[row[1]] == given | {"more": [] if row[-1] == {} else given["more"]}
            else:
                assert {name: found[row[1]][name] for name in ("user_id", "item_id", "seen", "is_new", "score", "more")} == {
                    name: given[name] for name in ("user_id", "item_id", "seen", "is_new", "score", "more")
                }
                assert found[row[1]]["at"] == (row[8] and "2024-01-31T23:59:59.123456Z")
                assert len(found[row[1]]["tags"] or []) == len(row[9] or [])


def test_csv_holds_every_type_and_character_as_rfc_4180_has_it(spark, make_sink):
    at = datetime(2024, 1, 31, 23, 59, 59, 123456, tzinfo=UTC)
    rows = [
        (text, n, text[::-1], n / 7, 0.5, 2**60, True, DAY, at, [{"name": text, "weight": 1.0, "at": at}], {})
        for n, text in enumerate(NASTY)
    ] + [("none", 9, *[None] * 9)]
    frame, sink = spark.createDataFrame(rows, WIDE).repartition(2), make_sink("csv")
    s3.deliver(delivery(frame, KEY), sink)
    assert s3.check(delivery(frame, KEY), sink) is None
    found = {int(row["rank"]): row for row in read(sink)}
    assert list(found[0]) == frame.columns and len(found) == len(rows)
    for n, text in enumerate(NASTY):
        assert (found[n]["user_id"], found[n]["item_id"], found[n]["score"]) == (text, text[::-1], str(n / 7))
        assert json.loads(found[n]["tags"])[0]["name"] == text
        assert (found[n]["at"], found[n]["day"], found[n]["seen"]) == ("2024-01-31T23:59:59.123456Z", str(DAY), str(2**60))
    assert set(list(found[9].values())[2:]) == {""}


@pytest.mark.parametrize("kind", KINDS)
def test_a_night_is_exchanged_whole_and_sent_once(spark, make_sink, kind):
    sink, one = make_sink(kind), delivery(lists(spark, 1), KEY, run_id="r1")
    assert s3.manifest(sink) is None and s3.check(one, sink) == "nothing was delivered"
    assert s3.deliver(one, sink).rows == 120 and s3.manifest(sink) == one.manifest
    assert {row["item_id"] for row in read(sink)} == {"i1"} and current(sink)["rows"] == 120
    assert (s3.deliver(one, sink).how, len(folders(sink))) == ("nothing", 1)
    first = current(sink)
    for number in (2, 3):
        s3.deliver(delivery(lists(spark, number, users=2), KEY, run_id=f"r{number}"), sink)
        assert {row["item_id"] for row in read(sink)} == {f"i{number}"} and len(read(sink)) == 6
        assert len(folders(sink)) == 2, "only the delivery before is kept"
    assert first["folder"] not in folders(sink) and current(sink)["before"] in folders(sink)
    assert len(s3_server.got(f"{sink.endpoint}/{sink.url.removeprefix('s3://')}/current.json")) % 4096 == 0
    # Nothing to deliver leaves a file without rows, so that readers find the columns.
    assert s3.deliver(delivery(lists(spark, 4).limit(0), KEY, run_id="r4"), sink).rows == 0
    [file] = current(sink)["files"]
    assert file["rows"] == 0 and read(sink) == []
    other = delivery(lists(spark, 4).drop("score"), KEY, run_id="r5")
    with pytest.raises(ValueError, match=r"without score; tell them, then set the sink's contract: 2"):
        s3.deliver(other, sink)


def test_a_reader_sees_one_night_or_the_next(spark, make_sink):
    sink = make_sink("json")
    s3.deliver(delivery(lists(spark, 1), KEY, run_id="r1"), sink)
    seen, done, failed = Counter(), threading.Event(), []

    def look():
        while not done.is_set():
            try:
                rows = read(sink)
            except Exception as error:
                failed.append(error)
                return
            seen[len(rows), frozenset(row["score"] for row in rows)] += 1

    reader = threading.Thread(target=look)
    reader.start()
    for number in (2, 3, 4):
        s3.deliver(delivery(lists(spark, number), KEY, run_id=f"r{number}"), sink)
    done.set()
    reader.join()
    assert not failed and set(seen) <= {(120, frozenset({float(number)})) for number in (1, 2, 3, 4)} and len(seen) > 1


def test_a_delivery_that_ends_before_the_switch_changes_nothing_and_is_cleared_away(spark, make_sink, monkeypatch):
    sink = make_sink()
    s3.deliver(delivery(lists(spark, 1), KEY, run_id="r1"), sink)
    with monkeypatch.context() as patch:
        patch.setattr(commits, "delivery", lambda what: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            s3.deliver(delivery(lists(spark, 2), KEY, run_id="r2"), sink)
    assert {row["item_id"] for row in read(sink)} == {"i1"}
    [killed] = folders(sink) - {current(sink)["folder"]}
    assert killed.startswith(f"{DAY}-r2-")
    s3.deliver(delivery(lists(spark, 3), KEY, run_id="r3"), sink)
    assert {row["item_id"] for row in read(sink)} == {"i3"} and killed in folders(sink), "it may be under way"
    monkeypatch.setattr(s3, "_ABANDONED_SECONDS", 0.0)
    time.sleep(1.1)  # objects' times are whole seconds
    s3.deliver(delivery(lists(spark, 4), KEY, run_id="r4"), sink)
    assert folders(sink) == {current(sink)["folder"], current(sink)["before"]}


def test_an_upload_that_does_not_end_well_is_not_listed(spark, server, make_sink):
    sink = make_sink("csv")
    s3.deliver(delivery(lists(spark, 1), KEY), sink)

    def breaks(method, path):
        broken = method == "POST" and "uploadId=" in path
        return (400, b"<Error><Code>InvalidPart</Code><Message>a part is gone</Message></Error>") if broken else None

    with s3_server.door(server, breaks) as endpoint, pytest.raises(ValueError, match="a part is gone") as raised:
        s3.deliver(delivery(lists(spark, 2), KEY), make_sink("csv", f"http://{endpoint}"))
    assert "\n" not in str(raised.value) and {row["item_id"] for row in read(sink)} == {"i1"}


@pytest.mark.parametrize("kind", KINDS)
def test_check_finds_what_was_changed_or_is_gone(spark, make_sink, kind):
    sink, one = make_sink(kind), delivery(lists(spark, 1), KEY)
    s3.deliver(one, sink)
    with Bucket.of(sink).asked() as files:
        paths = [f"{sink.url.removeprefix('s3://')}/{file['path']}" for file in current(sink)["files"]]
        with files.open_output_stream(paths[0].replace("part-", "part-9")) as stream:
            stream.write(b"of an attempt that does not count")
        assert s3.check(one, sink) is None
        content = files.open_input_stream(paths[1]).read()
        with files.open_output_stream(paths[0]) as stream:  # the other half's rows
            stream.write(content)
        assert re.match(r"it holds 1\d\d rows with checksum \d+, 120 with \d+ here", s3.check(one, sink))
        with files.open_output_stream(paths[0]) as stream:
            stream.write(content[:-40])
        try:
            assert "it holds" in s3.check(one, sink)
        except ValueError as error:
            assert kind == "parquet" and "cannot be read as parquet any more" in str(error) and "\n" not in str(error)
        files.delete_file(paths[0])
    assert s3.check(one, sink).startswith("1 of its 2 files are missing, ")
    assert s3.deliver(delivery(lists(spark, 1), KEY, whole=True), sink).rows == 120 and len(read(sink)) == 120


@pytest.mark.parametrize("kind", KINDS)
def test_a_person_is_handed_out_and_removed_from_every_delivery(spark, make_sink, kind):
    sink, person = make_sink(kind), Person.of("u7")
    for number in (1, 2):
        s3.deliver(delivery(lists(spark, number), KEY, run_id=f"r{number}"), sink)
    before = current(sink)
    held = list(s3.rows_of(sink, person))
    assert {row["item_id"] for row in held} == {"i2"} and len(held) == 3 and len(folders(sink)) == 2
    assert s3.erase(sink, person) == 3 and list(s3.rows_of(sink, person)) == []
    after = current(sink)
    assert len(read(sink)) == after["rows"] == 117 and "u7" not in {row["user_id"] for row in read(sink)}
    assert (after["checksum"], after["before"], after["manifest"]) == (None, None, before["manifest"])
    gone = {file["path"] for file in before["files"]} - {file["path"] for file in after["files"]}
    assert gone and not gone & keys(sink) and folders(sink) == {after["folder"]}
    assert keys(sink) == {"current.json", *(file["path"] for file in after["files"])}
    assert s3.erase(sink, Person.of("nobody")) == 0 and current(sink) == after
    assert s3.erase(make_sink(kind, url=f"{sink.url}/empty"), person) == 0


def test_current_json_of_somebody_else_is_left_alone(spark, make_sink):
    sink = make_sink()
    with Bucket.of(sink).asked() as files, files.open_output_stream(Bucket.of(sink).path("current.json")) as stream:
        stream.write(b'{"mine": 1}')
    with pytest.raises(ValueError, match="was not made by an export"):
        s3.deliver(delivery(lists(spark, 1), KEY), sink)
    assert keys(sink) == {"current.json"}


def refusal(sink):
    with pytest.raises(ValueError) as raised:
        s3.manifest(sink)
    assert "\n" not in str(raised.value) and "right-9431" not in str(raised.value) + repr(Bucket.of(sink))
    return str(raised.value)


def test_what_is_wrong_is_said_in_one_line(make_sink, monkeypatch, server):
    said = refusal(make_sink(url="s3://none/lists"))
    assert said.startswith(f"S3 at {server.removeprefix('http://')}, s3://none/lists: NO_SUCH_BUCKET") and "make the" in said
    said = refusal(make_sink(endpoint="http://127.0.0.1:1"))
    assert "S3 at 127.0.0.1:1, s3://" in said and "see that the server runs and lets this host in" in said
    assert "that the endpoint speaks TLS" in refusal(make_sink(endpoint=server.removeprefix("http://"))), "TLS by default"
    monkeypatch.delenv("LISTS_SECRET")
    with pytest.raises(ValueError, match="set LISTS_SECRET, the variable that is to hold the secret key"):
        s3.manifest(make_sink())
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA-chain")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "right-9431")
    assert s3.manifest(make_sink(key_id_env=None, secret_env=None)) is None


def test_a_refusal_as_simulated_by_a_server_that_answers_403_is_said_without_the_secret(spark, server, make_sink):
    """moto takes any key."""
    told = s3_server.FORBIDDEN % b"AKIA-right-22 with right-9431"
    with s3_server.door(server, lambda method, path: (403, told)) as endpoint:
        said = refusal(make_sink(endpoint=f"http://{endpoint}"))
        assert "SIGNATURE_DOES_NOT_MATCH" in said and "see that the sink's key is right" in said and "with (secret);" in said
    moved = b"<Error><Code>AuthorizationHeaderMalformed</Code><Message>the region is wrong</Message></Error>"
    with s3_server.door(server, lambda method, path: (400, moved)) as endpoint:
        assert "set the sink's region to the bucket's" in refusal(make_sink(endpoint=f"http://{endpoint}"))
    # Only to write is forbidden: a task is refused.
    with (
        s3_server.door(server, lambda method, path: (403, told) if method == "POST" else None) as endpoint,
        pytest.raises(ValueError, match=r"^S3 at 127.0.0.1:\d+, s3://.*SIGNATURE.*list, read, write and delete") as raised,
    ):
        s3.deliver(delivery(lists(spark, 1), KEY), make_sink(endpoint=f"http://{endpoint}"))
    assert "\n" not in str(raised.value) and "right-9431" not in str(raised.value)


def test_a_server_that_stalls_is_given_up(server, make_sink):
    began = time.monotonic()
    with s3_server.door(server, lambda method, path: 30.0) as endpoint:
        assert "see that the server runs" in refusal(make_sink(endpoint=f"http://{endpoint}", timeout_s=1.0))
    assert time.monotonic() - began < 25


def test_a_certificate_that_nobody_vouches_for_is_refused(tmp_path, make_sink, server):
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name.from_rfc4514_string("CN=127.0.0.1")
    now = datetime.now(UTC)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(1).not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    pem = serialization.Encoding.PEM
    plain = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "own.pem").write_bytes(key.private_bytes(pem, *plain) + made.sign(key, hashes.SHA256()).public_bytes(pem))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "own.pem")
    with s3_server.door(server, tls=context) as endpoint:
        assert "under a certificate that this host trusts" in refusal(make_sink(endpoint=f"https://{endpoint}"))


def test_the_step_serves_the_others_and_catches_up(make_context, make_settings, make_sink, server, tmp_path, caplog):
    files = Folder(kind="csv", path=str(tmp_path / "out"))
    sinks = {"broken": make_sink(url="s3://nowhere/lists"), "lists": make_sink("csv"), "files": files}
    settings = make_settings().model_copy(update={"sinks": sinks})
    context = make_context(DAY, settings=settings)
    seal(context, "anna", *NASTY)
    write(context, "recommendations", ENTRY, *[{**ENTRY, "user_id": user, "rank": 2} for user in NASTY])
    context = make_context(DAY, settings=settings)
    with pytest.raises(ValueError, match=r"sink broken failed: S3 at .* NO_SUCH_BUCKET.* \(lists, files: delivered\)"):
        exporting.run(context)
    log = {row["sink"]: (row["status"], row["rows"]) for row in logs.read(settings.lake, "export_log")}
    assert log == {"broken": ("failed", 0), "lists": ("done", 9), "files": ("done", 9)}
    assert "right-9431" not in caplog.text
    by_user = {row["user_id"]: row for row in read(sinks["lists"])}
    assert by_user == {row["user_id"]: row for row in read_csv(tmp_path / "out")} and set(by_user) == {"anna", *NASTY}
    night(context, settings, recommendations=context.pins["recommendations"], vault=context.pins["vault"])
    (counted,) = exporting.export(context.spark, settings, "lists", dry_run=True)
    assert (counted.how, counted.target) == ("nothing", sinks["lists"].url)
    (counted,) = exporting.export(context.spark, settings, "lists", dry_run=True, whole=True)
    assert (counted.how, counted.rows) == ("everything", 9)
    s3_server.make_bucket(server, "nowhere")
    outcomes = exporting.export(context.spark, settings)
    assert [(outcome.sink, outcome.rows) for outcome in outcomes] == [("broken", 9), ("lists", 0), ("files", 0)]
    assert exporting.export(context.spark, settings, "lists", check=True)[0].error is None


def test_readers_find_it_as_the_readme_says(spark, make_sink, tmp_path, monkeypatch):
    sink = make_sink()
    s3.deliver(delivery(lists(spark, 1, users=4), KEY), sink)
    place, bucket = sink.url.removeprefix("s3://"), Bucket.of(sink)
    with bucket.asked() as files:
        monkeypatch.setattr(fs, "S3FileSystem", lambda region: files)
        named = {}
        exec(re.search(r"```python\n(import json\n.*?)```", README, re.S)[1].replace("shop-data/lists", place), named)
        assert len(named["lists"]) == 12 and set(named["lists"].item_id) == {"i1"}
        for one in bucket.objects():
            (tmp_path / one.path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / one.path).write_bytes(files.open_input_stream(one.path).read())
    # DuckDB's own client of S3 is an extension that is fetched: here it reads what lies there from a copy.
    asked = re.search(r"```sql\n(SET VARIABLE files.*?)```", README, re.S)[1].replace("'anna'", "'u3'")
    with duckdb.connect() as database:
        assert len(database.sql(asked.replace("s3://shop-data/lists", str(tmp_path / place))).fetchall()) == 3


@pytest.mark.parametrize(
    "given, said",
    [
        ("url: https://shop/lists", "sinks.lists.s3.url: .*write s3://BUCKET/PREFIX"),
        ("url: s3://shop", "sinks.lists.s3.url: .*write s3://BUCKET/PREFIX"),
        ("url: s3://shop/a, format: xml", "sinks.lists.s3.format: .*'parquet', 'csv' or 'json'"),
        ("url: s3://shop/a, key_id_env: ID", "sinks.lists.s3: .*key_id_env and secret_env, or neither"),
        ("url: s3://shop/a, endpoint: 'https://me:hidden-1@host'", "sinks.lists.s3.endpoint: .*without a path or a password"),
        ("url: s3://shop/a, endpoint: 'ftp://host'", "sinks.lists.s3.endpoint: .*write https://HOST:PORT"),
        ("url: s3://shop/a, timeout_s: 0", "sinks.lists.s3.timeout_s: .*greater than 0"),
        ("url: s3://shop/a, secret: hidden-1", "sinks.lists.s3.secret: unknown key"),
    ],
)
def test_wrong_settings_are_named(given, said):
    with pytest.raises(SettingsError, match=said) as raised:
        load_settings(overrides=[f"sinks.lists={{kind: s3, {given}}}"])
    assert "hidden-1" not in str(raised.value)


def test_the_doctor_looks_without_writing(make_settings, make_sink):
    for sink, problem in ((make_sink(), None), (make_sink(url="s3://absent/lists"), "NO_SUCH_BUCKET")):
        settings = make_settings().model_copy(update={"sinks": {"lists": sink}})
        [found] = [check for check in doctor.checks(settings) if check.name == "sink: lists"]
        assert problem in found.problem if problem else found.problem is None and sink.url in found.found
    assert keys(make_sink()) == set()
