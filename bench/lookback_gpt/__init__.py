"""How the shipped model lookback-gpt was made: its texts, what simpler models reach on them, and its publication.

Nothing here is part of the installed package. All of it runs in the main environment, except that `publish` needs
matplotlib for the picture of the loss.
"""
