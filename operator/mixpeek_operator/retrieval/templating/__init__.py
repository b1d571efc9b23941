"""The template language of retrievers: Jinja's grammar and the C-like operators, run by an evaluator of our own.

Jinja only parses. Its code generator is never called: the tree is turned into closures over plain data, so a
template cannot reach a Python attribute, and every operation that could grow pays from a budget.
"""
