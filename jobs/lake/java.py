"""Is there a Java that Spark can run on? Standard library only: `make` asks before anything is installed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

JAVA_MAJOR = 17


def java_problem() -> str | None:
    """What is wrong with Java here and how to mend it, in one line; None if nothing is."""
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    remedy = "install Java 17 (Debian, Ubuntu: apt-get install openjdk-17-jre-headless) or set JAVA_HOME to one"
    if java is None or not Path(java).exists():
        return f"no Java found{f' in JAVA_HOME={home}' if home else ''}: {remedy}"
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    match = re.search(r'version "(\d+)', said)
    if match is None or int(match[1]) != JAVA_MAJOR:
        return f"{java} is Java {match[1] if match else '(unknown)'}, Spark 4.0 is run on Java 17 here: {remedy}"
    return None


if __name__ == "__main__":
    sys.exit(java_problem())
