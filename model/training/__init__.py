"""Training a GPT from scratch: its data, its vocabulary, its steps."""
