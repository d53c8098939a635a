"""What went wrong, said in one line."""

from __future__ import annotations

import re


def one_line(error: BaseException) -> str:
    """What went wrong, in one line: the innermost cause that says something a person can act on."""
    text = str(error)
    for pattern, meaning in _KNOWN_CAUSES:
        if re.search(pattern, text):
            named = re.search(r"reading file (?:file:/*(?=/))?(\S+?)\.?\s", text)
            found = named or re.search(r"(?:file:)?(/[^\s:'\"]+)", text)
            return meaning + (f" ({found[1]})" if found else "")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("at ")]
    causes = [line for line in lines if line.startswith("Caused by:")]
    first = causes[-1].removeprefix("Caused by:").strip() if causes else (lines[0] if lines else "")
    return f"{type(error).__name__}: {first}" if not isinstance(error, ValueError) else " ".join(text.split())


_KNOWN_CAUSES = (
    (
        r"No space left on device",
        "the disk is full: free some space and run the same command again; nothing stored was changed",
    ),
    (
        # Spark may read nothing more from a Python worker before it sees that there is none, be it the worker's first word.
        r"Python worker exited unexpectedly|OutOfMemoryError|exit code 137"
        r"|EOFException(\s+at java\S+)*\s+at org\.apache\.spark\.(api\.python|sql\.execution\.python|security)\.",
        "out of memory: raise spark.driver_memory, or use fewer cores in spark.master",
    ),
    (
        r"Unexpected end of (ZLIB )?input stream|EOFException",
        "a compressed input file is truncated: fetch it again; nothing stored was changed",
    ),
    (r"not in gzip format|incorrect header check", "an input file is named .gz but is not gzip"),
    (r"FAILED_READ_FILE", "a file is damaged: fetch it again, or restore it; nothing stored was changed"),
)
