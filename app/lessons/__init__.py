"""The lessons: one module for each mechanism of a GPT that can be seen and changed."""
