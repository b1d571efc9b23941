"""Built-in archive: text into chunks, dense embeddings and BM25-style sparse embeddings."""
