"""Measurements against real-sized files, side by side with other ways of doing the same."""
