"""Fixtures of the tests of other projects' interfaces."""

from tests.compat.small import quick

__all__ = ["quick"]
