import hashlib
import hmac
import stat

import pytest
from cryptography.exceptions import InvalidTag
from hypothesis import given
from hypothesis import strategies as st

from jobs.lake import identities

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
