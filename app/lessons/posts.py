"""What the lessons build on: posts of Giles Thomas's series, and chapters of the book he works through, by title."""

from app.experiments.base import Reference

SERIES = "https://www.gilesthomas.com/llm-from-scratch"
BOOK_ADDRESS = "https://www.manning.com/books/build-a-large-language-model-from-scratch"


def post(title: str, path: str) -> Reference:
    """A post of Giles Thomas's blog; `path` is its year, month and name."""
    return Reference(title, f"https://www.gilesthomas.com/{path}")


def chapter(section: str) -> Reference:
    """A chapter or section of Sebastian Raschka's "Build a Large Language Model (from Scratch)"."""
    return Reference(f"the book, chapter {section}", BOOK_ADDRESS)


MATHS = post("The maths you need to start understanding LLMs", "2025/09/maths-for-llms")
MATHS_ADDENDUM = post(
    "An addendum to 'the maths you need to start understanding LLMs'", "2025/09/maths-for-llms-addendum"
)
MATRICES = post(
    "Basic matrix maths for neural networks: the theory", "2025/02/basic-neural-network-matrix-maths-part-1"
)
MATRICES_IN_PRACTICE = post(
    "Basic matrix maths for neural networks: in practice", "2025/02/basic-neural-network-matrix-maths-part-2"
)
PART_2 = post("part 2", "2024/12/llm-from-scratch-2")
PART_3 = post("part 3", "2024/12/llm-from-scratch-3")
PART_5 = post("part 5: more on self-attention", "2025/01/llm-from-scratch-5-self-attention")
PART_6 = post("part 6: starting to code self-attention", "2025/01/llm-from-scratch-6-coding-self-attention-part-1")
PART_6B = post("part 6b: a correction", "2025/01/llm-from-scratch-6b-correction")
PART_7 = post(
    "part 7: wrapping up non-trainable self-attention", "2025/02/llm-from-scratch-7-coding-self-attention-part-2"
)
PART_8 = post("part 8: trainable self-attention", "2025/03/llm-from-scratch-8-trainable-self-attention")
PART_9 = post("part 9: causal attention", "2025/03/llm-from-scratch-9-causal-attention")
PART_10 = post("part 10: dropout", "2025/03/llm-from-scratch-10-dropout")
PART_11 = post("part 11: batches", "2025/04/llm-from-scratch-11-batches")
PART_12 = post("part 12: multi-head attention", "2025/04/llm-from-scratch-12-multi-head-attention")
PART_13 = post(
    "part 13: the 'why' of attention, or: attention heads are dumb",
    "2025/05/llm-from-scratch-13-taking-stock-part-1-attention-heads-are-dumb",
)
PART_14 = post(
    "part 14: the complexity of self-attention at scale",
    "2025/05/llm-from-scratch-14-taking-stock-part-2-the-complexity-of-self-attention-at-scale",
)
PART_15 = post(
    "part 15: from context vectors to logits; or, can it really be that simple?!",
    "2025/05/llm-from-scratch-15-from-context-vectors-to-logits",
)
