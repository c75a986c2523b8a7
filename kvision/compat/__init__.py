"""Interfaces of other projects, on our models: their scripts run with new imports.

Nothing in kvision imports this package.
"""
