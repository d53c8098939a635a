"""Starts Spark's Python workers on one machine, with the slow imports done once.

Spark forks a worker from this process for each task that runs at the same time, and ends it when it was
idle for a minute. Importing torch and transformers takes each fresh one about four seconds of processor
time; forked from here it has them, and shares their memory.
"""

import numpy  # noqa: F401
import pandas  # noqa: F401
import pyarrow  # noqa: F401
import scipy.spatial  # noqa: F401
import sklearn.cluster  # noqa: F401
import torch  # noqa: F401
import transformers.models.bert.modeling_bert  # noqa: F401
from pyspark.daemon import manager
from transformers import AutoModel, AutoTokenizer  # noqa: F401

if __name__ == "__main__":
    manager()
