"""Measurements of kvision beside what a user would pick instead."""
