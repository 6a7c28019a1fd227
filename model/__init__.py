"""The network and how it is observed. Knows nothing of the web."""
