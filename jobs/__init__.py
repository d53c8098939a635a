"""The pipeline on Spark: one step a file, in the order that `jobs.pipeline` gives."""
