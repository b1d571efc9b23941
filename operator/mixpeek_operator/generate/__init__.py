"""Files that derive from the models: CustomResourceDefinitions and reference pages."""
