"""What may be set, and what every table looks like. Imports nothing of ours."""
