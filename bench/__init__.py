"""How long a keystroke takes here and elsewhere: one command measures this app beside its peers on the same machine."""
