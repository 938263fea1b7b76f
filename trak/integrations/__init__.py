"""Callbacks of trainers, and what they keep."""
