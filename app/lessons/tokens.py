"""S09: a text becomes tokens: its bytes are merged pair by pair, in the order that the tokenizer has learned."""

from collections.abc import Iterator
from functools import cached_property
from typing import Annotated

from app.experiments.base import Lesson, Work, panel
from app.experiments.checks import Check, at_most
from app.experiments.controls import Controls, Slider, Switch, TokenOf
from app.experiments.panels import Chip, ChipRow, Chips, Facts, facts
from app.lessons.posts import PART_2, chapter
from model.tokenizer import Token, Tokens, token_label


class TokensControls(Controls):
    """A token, and how many of its merges are applied."""

    leading_space: Annotated[
        bool, Switch("Add a leading space", "makes the first word the token that it is inside a text")
    ] = False
    token: Annotated[int | None, TokenOf("Token", "shows how this token is merged from its bytes")] = 1
    merged: Annotated[
        float, Slider(0, 1, 0.05, "Merges applied", "0 shows the bytes, 1 the whole token", playable=True)
    ] = 1.0


class TokensWork(Work):
    """The tokens of the text, and the merges that make one of them."""

    controls: TokensControls

    @cached_property
    def text(self) -> str:
        """The text, with a leading space if one is added; that of the ids if the request has no text."""
        return " " * self.controls.leading_space + (self.controls.text or self.decode(self.tokens))

    @cached_property
    def encoded(self) -> Tokens:
        """The tokens of the text, with its leading space if one is added."""
        if not self.controls.leading_space:
            return self.tokens
        return self.model.tokenizer.encode(self.text, special_tokens=self.controls.special_tokens)

    @property
    def token(self) -> Token:
        """The chosen token."""
        tokens, position = self.encoded.tokens, self.controls.token
        return tokens[-1 if position is None else min(position, len(tokens) - 1)]

    @property
    def ordered(self) -> Tokens:
        """The tokens in the order in which they are decoded."""
        return Tokens(self.encoded.tokens[::-1]) if self.controls.broken else self.encoded

    def decode(self, tokens: Tokens) -> str:
        """The text of some tokens."""
        return self.model.tokenizer.decode(tokens.ids)

    @panel
    def token_chips(self) -> Chips:
        """Every token with its id and its bytes."""
        chips = [
            Chip(
                text=token_label(token.bytes),
                about=f"position {token.position}, id {token.id}, bytes {token.bytes.hex(' ')}",
            )
            for token in self.ordered.tokens
        ]
        return Chips(title=f"Tokens of the text: {len(chips)}", rows=[ChipRow(name="", chips=chips)])

    @panel
    def merges(self) -> Chips:
        """The chosen token: its bytes, then one row per merge."""
        token = self.token
        steps = self.model.tokenizer.merge_steps(token.id)
        n_shown = 1 + round(self.controls.merged * (len(steps) - 1))
        rows = [
            ChipRow(name=f"merge {n}" if n else "bytes", chips=[Chip(text=token_label(part)) for part in parts])
            for n, parts in enumerate(steps[:n_shown])
        ]
        return Chips(title=f"Merges of the token {token.position} {token_label(token.bytes)}", rows=rows)

    @panel
    def facts(self) -> Facts:
        """Counts of the text and of the tokenizer, and the text that the tokens decode to."""
        tokenizer, n_bytes, n_tokens = self.model.tokenizer, len(self.text.encode()), len(self.encoded)
        named: dict[str, float | str] = {
            "characters": len(self.text),
            "bytes": n_bytes,
            "tokens": n_tokens,
            "bytes per token": n_bytes / n_tokens,
            "different tokens": len(set(self.encoded.ids)),
            "merges of the chosen token": len(tokenizer.merge_steps(self.token.id)) - 1,
            "merges that the tokenizer has learned": tokenizer.n_merges,
            "tokens in the vocabulary": self.config.n_vocab,
            "decoded text": self.decode(self.ordered),
        }
        return facts("Counts", named)

    def checks(self) -> Iterator[Check]:
        """The ids decode to the text, the merges lead to the tokens, and every id is in the vocabulary."""
        tokenizer, tokens = self.model.tokenizer, self.encoded
        is_dropped = {i for dropped in tokens.dropped for i in range(dropped.start, dropped.end)}
        encodable = "".join(character for i, character in enumerate(self.text) if i not in is_dropped)
        adds_space = tokenizer.prefix_space and self.controls.text and not self.text.startswith(" ")
        expected = " " + encodable if adds_space else encodable
        yield at_most(0, float(self.decode(self.ordered) != expected), "the ids decode to the text")
        n_wrong = sum(tokenizer.merge_steps(token.id)[-1] != [token.bytes] for token in tokens.tokens)
        yield at_most(0, float(n_wrong), "the merges of every token lead to that token")
        yield at_most(self.config.n_vocab - 1, float(max(tokens.ids)), "the largest id is in the vocabulary")


EXPERIMENT = Lesson(
    number=9,
    title="Tokens",
    posts=(PART_2, chapter("2.2")),
    work=TokensWork,
    break_description="decode the tokens in reverse order",
    code_references=("model/tokenizer.py: Tokenizer.encode", "model/tokenizer.py: Tokenizer.merge_steps"),
)
