"""Pseudonyms: keyed hashes inside the lake, and the way back through the encrypted vault."""

import hashlib
import hmac
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

# No postponed annotations here: Spark reads those of the functions below as they are defined.
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

if TYPE_CHECKING:
    from pyspark.sql import Column

KEY_VARIABLE = "WHEREWHEN_KEY"
TOMBSTONE_KEY_VARIABLE = "WHEREWHEN_TOMBSTONE_KEY"
_NONCE_BYTES = 12


def key_file() -> Path:
    return Path.home() / ".config" / "wherewhen" / "key"


def key_problem(master: str, lake: str) -> str | None:
    """Why there must be a given key and is none; None where there is, or Spark and the lake are of this machine alone.

    A key made here would be known here only: other machines would call the same users by other names.
    """
    is_local = master.startswith("local") and ("://" not in lake or lake.startswith("file://"))
    if is_local or KEY_VARIABLE in os.environ:
        return None
    shared = f"Spark runs at {master}" if not master.startswith("local") else f"the lake is {lake}"
    made = "openssl rand -hex 32" if not key_file().exists() else f"cat {key_file()}"
    return f'{shared}, so all machines need one key: export {KEY_VARIABLE}="$({made})", the same everywhere'


def load_key(*, create: bool = True) -> bytes:
    """The 32-byte key: `WHEREWHEN_KEY`, else the key file, made on first use with mode 600.

    Raises:
        ValueError: the key is not 64 hex digits, or the file can be read by others.
    """
    return _load(KEY_VARIABLE, key_file(), create)


def load_tombstone_key() -> bytes:
    """The second key, under which erased persons are known again: `WHEREWHEN_TOMBSTONE_KEY`, else its file.

    Apart from the first, so that whoever replaces the first (and so makes all pseudonyms anew) still
    keeps out who was erased.

    Raises:
        ValueError: as `load_key`.
    """
    return _load(TOMBSTONE_KEY_VARIABLE, key_file().with_name("tombstone-key"), create=True)


def _load(variable: str, path: Path, create: bool) -> bytes:
    if (given := os.environ.get(variable)) is not None:
        return _parse(given, variable)
    if path.exists():
        if path.stat().st_mode & 0o077:
            raise ValueError(f"{path} can be read by others: chmod 600 {path}")
        return _parse(path.read_text(), str(path))
    if not create:
        raise ValueError(f"no key: set {variable} to 64 hex digits, or run a pipeline once to make {path}")
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Exclusive: of two first runs at once one makes the key and the other reads it.
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _parse(path.read_text(), str(path))
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(32))
    return _parse(path.read_text(), str(path))


def _parse(text: str, where: str) -> bytes:
    try:
        key = bytes.fromhex(text.strip())
    except ValueError:
        key = b""
    if len(key) != 32:
        raise ValueError(f"{where} must hold 64 hex digits (32 bytes); make one with: openssl rand -hex 32")
    return key


def pseudonym(user_id: str, key: bytes) -> str:
    """HMAC-SHA256 of the caller's id, 64 hex digits."""
    return hmac.new(key, user_id.encode(), hashlib.sha256).hexdigest()


def pseudonym_sql(user_id: str, key: bytes) -> tuple[str, dict[str, bytes]]:
    """`pseudonym` as DuckDB's SQL over a string, and the values of its parameters, so that no statement holds the key."""
    block = key.ljust(hashlib.sha256().block_size, b"\0")
    values = {"inner": bytes(byte ^ 0x36 for byte in block), "outer": bytes(byte ^ 0x5C for byte in block)}
    return f"sha256($outer || unhex(sha256($inner || encode({user_id}))))", values


def seal(user_id: str, key: bytes) -> bytes:
    """Encrypt the caller's id (AES-GCM, random nonce in front)."""
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return nonce + AESGCM(_vault_key(key)).encrypt(nonce, user_id.encode(), b"vault")


def unseal(sealed: bytes, key: bytes) -> str:
    """Decrypt what `seal` made.

    Raises:
        cryptography.exceptions.InvalidTag: another key, or changed bytes.
    """
    return AESGCM(_vault_key(key)).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], b"vault").decode()


def _vault_key(key: bytes) -> bytes:
    """A key of its own for the vault, so that pseudonyms and ciphertexts share none."""
    return hmac.new(key, b"wherewhen vault", hashlib.sha256).digest()


def pseudonym_column(user_id: "Column", key: bytes) -> "Column":
    """`pseudonym` on a string column. The key travels in the function, never in a plan or a log."""
    import pandas as pd
    from pyspark.sql import functions as F

    @F.pandas_udf("string")  # type: ignore[call-overload]
    def hashed(ids: pd.Series) -> pd.Series:
        codes, distinct = pd.factorize(ids)
        names = pd.Series([pseudonym(one, key) for one in distinct] + [None], dtype=object)
        return names.iloc[codes].reset_index(drop=True)

    return hashed(user_id)


def sealed_column(user_id: "Column", key: bytes) -> "Column":
    """`seal` on a string column."""
    import pandas as pd
    from pyspark.sql import functions as F

    @F.pandas_udf("binary")  # type: ignore[call-overload]
    def encrypted(ids: pd.Series) -> pd.Series:
        return ids.map(lambda one: seal(one, key))

    return encrypted(user_id)


def unsealed_column(sealed: "Column", key: bytes) -> "Column":
    """`unseal` on a binary column."""
    import pandas as pd
    from pyspark.sql import functions as F

    @F.pandas_udf("string")  # type: ignore[call-overload]
    def decrypted(boxes: pd.Series) -> pd.Series:
        return boxes.map(lambda box: unseal(bytes(box), key))

    return decrypted(sealed)
