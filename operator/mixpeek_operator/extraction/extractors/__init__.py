"""Built-in extractors: one archive folder each; its name is the extractor's name."""
