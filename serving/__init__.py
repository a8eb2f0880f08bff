"""Answers: a small app that reads what was written, and never computes."""
