"""Where an S3 sink writes: a prefix of a bucket, on AWS or a server that speaks S3; what that says comes in one line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache

from pyarrow import fs

from conf.settings import S3
from jobs.sinks import tasks

_ATTEMPTS = 3
_REGION = "us-east-1"  # which servers that know no regions expect
# What a server's or the library's words mean -> what to do. The first that is found counts.
_MEND = (
    (r"NO_SUCH_BUCKET", "make the bucket, or mend the sink's url"),
    (
        r"ACCESS_DENIED|SIGNATURE|ACCESS_KEY|(?i:token)|CLIENT_ID|HTTP status 40[13]",
        "see that the sink's key is right, and may list, read, write and delete below its url",
    ),
    (r"HTTP status 30\d|configured region|AuthorizationHeaderMalformed", "set the sink's region to the bucket's"),
    (r"curlCode: (35|51|58|60|77)", "see that the endpoint speaks TLS under a certificate that this host trusts"),
    (r"NETWORK_CONNECTION", "see that the server runs and lets this host in, or mend the sink's endpoint or region"),
)
_AGAIN = "`wherewhen export --whole` sends everything again"


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """How to reach it; made on the driver, as its environment holds the key, and used by every task."""

    root: str  # BUCKET/PREFIX
    scheme: str
    endpoint: str | None  # HOST:PORT; None: AWS
    region: str | None
    key_id: str | None = field(repr=False)
    secret: str | None = field(repr=False)
    timeout_s: float

    @staticmethod
    def of(sink: S3) -> Bucket:
        """
        Raises:
            ValueError: a variable that is to hold the key is not set.
        """
        scheme, _, rest = (sink.endpoint or "").rpartition("://")
        endpoint = rest.rstrip("/") or None
        server = f"S3 at {endpoint or 'AWS'}"
        key_id = tasks.password(sink.key_id_env, server, "key's id")
        secret = tasks.password(sink.secret_env, server, "secret key")
        return Bucket(
            root=sink.url.removeprefix("s3://"),
            scheme=scheme or "https",
            endpoint=endpoint,
            region=sink.region or (_REGION if endpoint else None),
            key_id=key_id and key_id.strip(),
            secret=secret and secret.strip(),
            timeout_s=sink.timeout_s,
        )

    @property
    def server(self) -> str:
        return self.endpoint or f"AWS{f', {self.region}' if self.region else ''}"

    @contextmanager
    def asked(self) -> Iterator[fs.S3FileSystem]:
        """The server, in whose body what fails is said in one line.

        Raises:
            ValueError: it cannot be reached, or refuses; names it and the url, never the key.
        """
        try:
            yield _connected(self)
        except OSError as error:
            raise ValueError(self.refused(str(error))) from None

    def refused(self, said: str) -> str:
        text = " ".join(said.split())
        text = text.replace(self.secret, "(secret)") if self.secret else text
        short = re.search(r"AWS Error (.*)", text)
        # What the server did not say is about a file.
        mend = next((how for pattern, how in _MEND if re.search(pattern, text)), "" if short else _AGAIN)
        text = short[1] if short else re.sub(r"\[Errno \d+\] |\.? Detail: .*", "", text)
        return f"S3 at {self.server}, s3://{self.root}: {text.rstrip('.')}" + (mend and f"; {mend}")

    def objects(self) -> list[fs.FileInfo]:
        """All objects below the prefix.

        Raises:
            ValueError: as `asked`. To be asked first: only of lists a server says why it refuses, and that there is no bucket.
        """
        with self.asked() as files:
            try:
                found = files.get_file_info(fs.FileSelector(self.root, recursive=True))
            except FileNotFoundError:  # nothing below the prefix; of a bucket that is not there it is another error
                found = []
        return [one for one in found if one.is_file]

    def path(self, name: str) -> str:
        return f"{self.root}/{name}"


@cache
def _connected(bucket: Bucket) -> fs.S3FileSystem:
    return fs.S3FileSystem(
        access_key=bucket.key_id,
        secret_key=bucket.secret,
        region=bucket.region,
        scheme=bucket.scheme,
        endpoint_override=bucket.endpoint,
        connect_timeout=min(bucket.timeout_s, 10.0),
        request_timeout=bucket.timeout_s,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=_ATTEMPTS),
        # Else what is made faster than it can be sent piles up in memory.
        background_writes=False,
    )
