"""The live channel: the frames that the page gets, and which of them a client still needs."""
