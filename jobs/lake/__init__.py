"""The lake: Spark session, tables under contracts, run records, pseudonyms."""
