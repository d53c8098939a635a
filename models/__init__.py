"""The learning, in PyTorch. Never imports Spark."""
