import hashlib
import hmac
import stat

import pytest
from cryptography.exceptions import InvalidTag
from hypothesis import given
from hypothesis import strategies as st

from conf.settings import load_settings
from jobs.lake import identities, session

KEY, OTHER = bytes(range(32)), bytes(32)


@given(st.text())
def test_the_vault_gives_back_what_was_sealed(user_id):
    assert identities.unseal(identities.seal(user_id, KEY), KEY) == user_id
    assert user_id.encode() not in identities.seal(user_id, KEY) or len(user_id) < 3


def test_pseudonyms_are_hmac_sha256_of_the_id():
    assert identities.pseudonym("u1", KEY) == hmac.new(KEY, b"u1", hashlib.sha256).hexdigest()
    assert identities.pseudonym("u1", KEY) != identities.pseudonym("u1", OTHER)


def test_another_key_or_changed_bytes_open_nothing():
    sealed = identities.seal("u1", KEY)
    with pytest.raises(InvalidTag):
        identities.unseal(sealed, OTHER)
    with pytest.raises(InvalidTag):
        identities.unseal(sealed[:-1] + bytes([sealed[-1] ^ 1]), KEY)


@pytest.mark.parametrize(
    ("master", "lake", "said"),
    [
        ("local[*]", "lake", None),
        ("local[2]", "file:///data/lake", None),
        ("spark://host:7077", "lake", "Spark runs at spark://host:7077"),
        ("yarn", "file:///mnt/lake", "Spark runs at yarn"),
        ("local[2]", "s3a://bucket/lake", "the lake is s3a://bucket/lake"),
    ],
)
def test_what_machines_share_needs_a_given_key(monkeypatch, tmp_path, master, lake, said):
    """A key file of this machine does not do, but names the key that lists were made with."""
    assert identities.key_problem(master, lake) is None, "it is given"
    monkeypatch.delenv("WHEREWHEN_KEY")
    monkeypatch.setenv("HOME", str(tmp_path))
    problem = identities.key_problem(master, lake)
    assert (problem is None) == (said is None)
    if said is not None:
        assert problem.startswith(said) and "openssl rand -hex 32" in problem and "\n" not in problem
        settings = load_settings(overrides=[f"spark.master={master}", f"lake={lake}"])
        with pytest.raises(ValueError, match="export WHEREWHEN_KEY"):
            session.start(settings)
        identities.load_key()
        assert f"cat {tmp_path}/.config/wherewhen/key" in identities.key_problem(master, lake)


def test_the_key_is_made_once_private_and_outside_any_lake(monkeypatch, tmp_path):
    monkeypatch.delenv("WHEREWHEN_KEY")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ValueError, match="no key"):
        identities.load_key(create=False)
    key = identities.load_key()
    path = tmp_path / ".config" / "wherewhen" / "key"
    assert identities.load_key() == key and stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    with pytest.raises(ValueError, match=f"chmod 600 {path}"):
        identities.load_key()


@pytest.mark.parametrize("bad", ["", "12", "zz" * 32, "00" * 31])
def test_a_bad_key_is_refused_without_showing_it(monkeypatch, bad):
    monkeypatch.setenv("WHEREWHEN_KEY", bad)
    with pytest.raises(ValueError, match="WHEREWHEN_KEY must hold 64 hex digits") as caught:
        identities.load_key()
    assert not bad or bad not in str(caught.value)


def test_columns_agree_with_the_functions_and_show_no_key(spark, capfd):
    rows = spark.createDataFrame([("a",), (None,), ("b",), ("a",)], "user_id string")
    named = rows.select(identities.pseudonym_column(rows.user_id, KEY).alias("p"), rows.user_id)
    found = [(row.p, row.user_id) for row in named.collect()]
    assert found == [(identities.pseudonym(u, KEY) if u else None, u) for u in ("a", None, "b", "a")]
    named.explain(True)
    assert KEY.hex() not in capfd.readouterr().out
    sealed = rows.where("user_id is not null").select(identities.sealed_column(rows.user_id, KEY).alias("s"))
    opened = sealed.select(identities.unsealed_column(sealed.s, KEY).alias("u"))
    assert sorted(row.u for row in opened.collect()) == ["a", "a", "b"]
