"""Bridges to other frameworks, on networks that are written in the tests."""
