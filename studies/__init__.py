"""Searches over detectors and heads: what is searched, how a search is run, what it leaves."""
