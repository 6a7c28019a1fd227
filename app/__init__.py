"""The web: asks the model, draws, answers. Importing it reads no file, no setting and no weight."""
