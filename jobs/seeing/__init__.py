"""Pictures of when and where as self-contained pages: no JVM, no tiles, nothing fetched from anywhere."""
