"""A person's records in files of text and in unreadable lines."""

import gzip
import json
import os
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.erase.landing import _has
from jobs.lake import records
from jobs.lake.person import PIECES, Person, owns
from jobs.lake.tombstones import Tombstones, key_check, tombstone_of

KEY = bytes(range(32))
IDS = st.text(alphabet="ab1_-@. \"'\\{é", min_size=1, max_size=6).filter(str.strip)


def tombstones(*ids):
    rows = [tombstone_of(one, KEY) for one in ids]
    return Tombstones(
        hashes=frozenset(row["tombstone"] for row in rows), pieces=frozenset(row["pieces"] for row in rows), key=KEY
    )


@given(user=IDS, line=st.text(alphabet="ab1_-@. \"'\\{é,", max_size=20), place=st.integers(0, 20), form=st.integers(0, 2))
def test_what_erasing_takes_out_of_broken_lines_ingest_keeps_out(user, line, place, form):
    """One knows the id, the other only its keyed hash; both must judge alike."""
    written = [user, json.dumps(user)[1:-1], user.replace('"', '""')][form]
    for text in (line, line[:place] + written + line[place:], f'{{"user_id": "{written}", '):
        assert Person.of(user).is_named_in(text) == tombstones(user).is_named_in(text), text


@pytest.mark.parametrize("user", ["u1", "a b", "o'hara", 'say "hi"', "anna@example.org", "東京", "%_*"])
def test_an_id_is_found_in_a_broken_line_as_words_of_its_own(user):
    for line in (f'{{"user_id": {json.dumps(user)}, "it', f"{user},i1,2024", '"' + user.replace('"', '""') + '";i1'):
        assert Person.of(user).is_named_in(line) and tombstones("x", user).is_named_in(line), line
    for line in ("", f"x{user}x1,i1" if PIECES.findall(user)[0].isalnum() and user.isalnum() else "somebody", "i1"):
        assert not Person.of(user).is_named_in(line) and not tombstones(user).is_named_in(line), line


def test_a_tombstone_tells_neither_the_id_nor_the_key():
    row = tombstone_of("anna", KEY)
    assert row == tombstone_of("anna", KEY) != tombstone_of("berta", KEY) and row["pieces"] == 1
    assert "anna" not in repr(row) and KEY.hex() not in repr(tombstones("anna")) and KEY.hex() not in key_check(KEY)
    assert "anna" not in repr(Person.of("anna"))


FILES = {
    "plain.csv": (records.Csv(), b'at,user,item\n1,anna,i1\n2,bert,"a, anna"\n3,"anna",i3\r\n\n4,annabel,i4'),
    "bom.csv": (records.Csv(separator=";"), b"\xef\xbb\xbfuser;item\nanna;1\nbert;2\n"),
    "lines.csv": (records.Csv(multiline=True), b'user,text\nanna,"two\nlines, ""so"""\nbert,"anna\nanna"\nanna,x\n'),
    "bare.csv": (records.Csv(header=False, comment="#"), b"# anna\nanna,1\nbert,2\n"),
    "backslash.csv": (records.Csv(escape="\\"), b'user,text\nbert,"say \\"anna\\", now"\nanna,"\\""\n'),
    "cut.csv": (records.Csv(), b"user,item,at\nbert,i1,1\nanna,i\nbert,anna\n"),
    "latin.csv": (records.Csv(encoding="latin-1"), b"user,item\nanna,caf\xe9\nbert,caf\xe9\n"),
    "events.jsonl.gz": (
        records.JsonLines(),
        b'{"user": "anna"}\n{"user":"bert","text":"anna"}\r\n{"user": "\\u0061nna", "n": 1.50}\n'
        b'{"user": "anna", \nbroken\n\xff{"user": 1}\n',
    ),
}
LEFT = {
    "plain.csv": b'at,user,item\n2,bert,"a, anna"\n\n4,annabel,i4',
    "bom.csv": b"\xef\xbb\xbfuser;item\nbert;2\n",
    "lines.csv": b'user,text\nbert,"anna\nanna"\n',
    "bare.csv": b"# anna\nbert,2\n",
    "backslash.csv": b'user,text\nbert,"say \\"anna\\", now"\n',
    "cut.csv": b"user,item,at\nbert,i1,1\n",
    "latin.csv": b"user,item\nbert,caf\xe9\n",
    "events.jsonl.gz": b'{"user":"bert","text":"anna"}\r\nbroken\n\xff{"user": 1}\n',
}


@pytest.mark.parametrize("name", FILES)
def test_all_other_records_keep_their_bytes_and_the_file_its_date(tmp_path, name):
    form, content = FILES[name]
    path, person = tmp_path / name, Person.of("anna")
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    os.utime(path, ns=(10**18, 10**18))
    (tmp_path / f".{name}.crc").write_bytes(b"of the old bytes")
    judge = partial(_has, "_c0" if name == "bare.csv" else "user", "anna")
    found = len(list(records.read(path, form, person, judge)))
    assert records.take_out(path, form, person, judge) == found > 0
    left = path.read_bytes()
    assert (gzip.decompress(left) if name.endswith(".gz") else left) == LEFT[name]
    assert path.stat().st_mtime_ns == 10**18 and [one.name for one in tmp_path.iterdir()] == [name]
    assert records.take_out(path, form, person, judge) == 0 and path.read_bytes() == left


def test_a_file_packed_in_an_unknown_way_is_named(tmp_path):
    path = tmp_path / "events.csv.zst"
    path.write_bytes(b"x")
    with pytest.raises(ValueError, match=r"events.csv.zst: records in a .zst file cannot be taken out here"):
        records.take_out(path, records.Csv(), Person.of("anna"), lambda record: True)


def test_a_sinks_record_is_told_by_its_own_columns():
    person = Person.of("12")
    assert owns(person, {"user_id": "12", "item_id": "7"}) and not owns(person, {"user_id": "7", "item_id": "12"})
    assert owns(person, {"entity_type": "user", "entity_id": "12"})
    assert not owns(person, {"entity_type": "item", "entity_id": "12"})
    assert owns(person, {"broken": "12,i"}) and not owns(person, {"row": '{"text": "12"}'})
