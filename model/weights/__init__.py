"""Checkpoints: where they come from, and how they are read, checked, converted and written."""
