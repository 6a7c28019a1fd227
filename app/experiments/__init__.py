"""The shape of every lesson and every tool: controls, panels over one text, readings under edits, checks."""
