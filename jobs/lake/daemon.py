"""Starts Spark's Python workers on one machine, with the slow imports done once.

Spark forks a worker from this process for each task that runs at the same time, and ends it when it was
idle for a minute. Importing torch and transformers takes each fresh one many seconds of processor time;
forked from here it has them, and shares their memory.

Before each task a worker has the import system read the index of every archive on its path, and after it the
garbage collector goes through all objects: half a second, however little there is to do. So Spark's own
archives are taken off the path where its packages are installed too, and what is here before the fork is
never gone through.
"""

import gc
import sys
from importlib.machinery import PathFinder
from pathlib import PurePath

_installed = [path for path in sys.path if not PurePath(path).name.startswith(("pyspark.zip", "py4j-", "spark-core"))]
if all(PathFinder.find_spec(name, _installed) for name in ("pyspark", "py4j")):
    sys.path[:] = _installed
    sys.path_importer_cache.clear()

import numpy  # noqa: E402, F401
import pandas  # noqa: E402, F401
import pyarrow  # noqa: E402, F401
import scipy.spatial  # noqa: E402, F401
import sklearn.cluster  # noqa: E402, F401
import torch  # noqa: E402, F401
import transformers.models.bert.modeling_bert  # noqa: E402, F401
from pyspark.daemon import manager  # noqa: E402
from transformers import AutoModel, AutoTokenizer  # noqa: E402, F401

import jobs.lake.context  # noqa: E402, F401

if __name__ == "__main__":
    gc.collect()
    gc.freeze()
    manager()
