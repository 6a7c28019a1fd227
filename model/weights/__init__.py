"""Where weights come from, and their names -> ours."""
