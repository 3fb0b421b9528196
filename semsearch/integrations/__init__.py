"""semsearch inside RAG frameworks: `langchain`, `llamaindex` and `haystack`, each imported by its own name only."""
