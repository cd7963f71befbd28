"""What several files of tests use.

Tiny configurations, odd images, models of every family, runs to end.
"""
