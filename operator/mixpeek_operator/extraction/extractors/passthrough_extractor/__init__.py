"""Built-in archive: the inputs become the document, without a model."""
