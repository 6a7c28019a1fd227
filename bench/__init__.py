"""Benchmark: how long a keystroke takes in this app and in its peers, measured on the same machine in one run."""
