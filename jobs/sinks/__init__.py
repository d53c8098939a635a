"""Downstream systems, one a file."""
