"""Arrays that are read row by row: indexing, calculated rows, and their way into ``fit`` batch by batch."""
