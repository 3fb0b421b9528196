"""What is on disk: SQLite for the truth, and vector shards, FAISS and tantivy derived from it."""
