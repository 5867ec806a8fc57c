"""Shipped strategies, one a file; the registry in research/strategy.py finds them by being here."""
