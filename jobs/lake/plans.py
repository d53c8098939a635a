"""How Spark plans and runs what a step asks, by how much the step reads."""

from __future__ import annotations

from pyspark.sql import SparkSession

# A step that reads fewer bytes loses more time on compiling code for its plans than the code saves: of about so many a session
# that has run the same before takes as long either way, a fresh one far longer. Beside it what Spark does by itself.
# (Adaptive plans cost as well, but without them Spark ignores into how few files to write.)
LITTLE = 4 << 20
_BY_SIZE = {
    "spark.sql.codegen.wholeStage": ("false", "true"),
    "spark.sql.codegen.factoryMode": ("NO_CODEGEN", "FALLBACK"),
}


def suit(session: SparkSession, size: int) -> None:
    """From now on plans are made as for a step that reads `size` bytes; what the session was given for them stays."""
    assert session._jsc is not None
    given = session._jsc.sc().conf()
    for key, (little, much) in _BY_SIZE.items():
        if not given.contains(key):
            session.conf.set(key, little if size < LITTLE else much)
