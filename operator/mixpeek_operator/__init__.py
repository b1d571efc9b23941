"""mixpeek-operator: a multimodal data warehouse declared as resources."""

__version__ = "0.1.0"
