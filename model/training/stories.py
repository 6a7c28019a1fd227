"""SmolLM2 writes simple English for a smaller model to learn from: `python -m model.training.stories --out FOLDER`.

Instructions are put together from the words below, tens of thousands of them; each answer is begun for the model, so
that texts start in many ways. Texts are sampled many at a time: those with prompts of one length, so that no row needs
padding. Every batch becomes a file of its own, whole or not at all, and a run that was stopped goes on with the next.
At last FOLDER.txt gets the texts that are worth learning from.
"""

# shapes: B texts, T tokens of this pass, S tokens so far, H query heads, G key heads, D features of a head,
#         V tokens of the vocabulary, K likeliest of them

import argparse
import re
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from platformdirs import user_cache_path
from rich.console import Console
from torch import Tensor

from model.attention import fused_attention
from model.gpt import GPT
from model.tokenizer import Tokenizer
from model.training.corpus import joined, parted
from model.weights.catalogue import catalogue
from model.weights.folder import load
from model.weights.save import write_whole


def _listed(words: str) -> list[str]:
    return words.split(", ")


NAMES = _listed(
    "Tom, Anna, Ben, Mia, Sam, Lily, Rosa, Jack, Emma, Leo, Nora, Finn, Ada, Omar, Zoe, Ravi, Ines, Kofi, Yuki, "
    "Carl, Ruth, Hugo, Maya, Paul, Clara, Ivan, Lena, Noah, Elsa, Amir, Tess, Luis, Grace, Oscar, Wanda, Felix, "
    "Hanna, Peter, Sue"
)
ANIMALS = _listed(
    "cat, dog, mouse, fox, duck, cow, horse, pig, sheep, goat, rabbit, bear, wolf, owl, crow, frog, fish, bee, "
    "ant, snake, turtle, lion, elephant, monkey, hedgehog, squirrel, donkey, goose, robin, snail, whale, tiger, "
    "deer, spider, parrot, bat"
)
ADJECTIVES = _listed(
    "fat, old, small, sad, happy, quiet, angry, clever, lazy, brave, shy, hungry, tired, kind, proud, young, "
    "thin, funny, lost, gentle, curious, busy, sleepy, silly, white, black, brown, red, grey, strong, slow, "
    "quick, careful, lonely"
)
THINGS = _listed(
    "mat, hat, ball, book, chair, table, lamp, key, bag, cup, clock, coat, drum, kite, bell, rope, spoon, mirror, "
    "basket, blanket, boat, bucket, candle, map, letter, stone, shoe, ring, wheel, apple, cake, egg, loaf, "
    "bottle, broom, ladder, window, door, piano, bicycle"
)
PLACES = _listed(
    "the kitchen, the garden, a forest, the river, the market, a school, the farm, the sea, a train, the park, a "
    "big city, the library, an old house, the hill, a barn, the shop, a cave, the beach, a bridge, the roof, the "
    "mountains, a boat, the hospital, a castle, the bus stop, the bakery, an island, the cellar, the meadow"
)
DEEDS = _listed(
    "finds a, loses a, wants a, makes a, breaks a, hides a, buys a, sees a, gives away a, steals a, dreams of a, "
    "carries a, repairs a, shares a, is afraid of a, sits on a, looks for a, paints a, throws a, opens a"
)
WEATHER = _listed("rain, snow, wind, fog, sun, storm, frost, heat, thunder, clouds")
ROOMS = _listed(
    "kitchen, bedroom, attic, classroom, workshop, library, shop, cellar, waiting room, barn, station, garden, office"
)
TASKS = _listed(
    "boil an egg, plant a tree, wash a dog, make tea, bake bread, clean a window, tie a shoe, build a kite, write "
    "a letter, cross a street, light a fire, mend a sock, pack a bag, draw a cat, make soup, ride a bicycle, feed "
    "a hen, sweep a floor, set a table, find the way home, count money, learn a song, catch a fish, wrap a "
    "present, read a map, care for a plant"
)
QUESTIONS = _listed(
    "Why is the sky blue, Why do cats sleep so much, How does a bird fly, What is the moon, Where does rain come "
    "from, Why is the sea salty, How do fish breathe, Why do leaves fall, What is a friend, How does a clock "
    "work, Why do we sleep, What is bread made of, How do seeds grow, Why does ice float, What is a shadow, How "
    "is paper made, Why do dogs bark, What is thunder, How do ships float, Why do we dream, What is wind, How "
    "does a key open a lock, What is the difference between a frog and a toad, Why do people tell stories, What "
    "does a farmer do, How do birds find their way, What is money for, Why is fire hot, How does a wheel help"
)
STARTS = _listed(
    "The, One day, the, When the, At night, the, Every day, the, Long ago, the, Last summer, the, After lunch, the"
)
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"  # what it was tuned with

N_GRAM = 5  # words; what is common to two texts, or said twice in one, is counted in runs of so many
MOST_SAID_TWICE = 0.3  # of a text's runs; a small writer often cannot stop
MOST_SHARED = 0.4  # of a text's runs, with all texts before it

TOP_K = 64  # tokens; sorting 64 of 49,152 costs a hundredth of sorting them all
TOP_P = 0.95
TEMPERATURES = (0.5, 0.9)


@dataclass(frozen=True)
class Order:
    """What is asked of the writer, and how its answer begins."""

    instruction: str
    opening: str

    @property
    def prompt(self) -> str:
        """The order as a dialogue, up to where the writer takes over."""
        turns = (
            f"<|im_start|>{who}\n{what}<|im_end|>\n" for who, what in (("system", SYSTEM), ("user", self.instruction))
        )
        return f"{''.join(turns)}<|im_start|>assistant\n{self.opening}"


def order(random: Random) -> Order:
    """Ask for something: stories most often, then dialogues, descriptions, instructions, answers.

    A whole first sentence keeps a small writer at its subject; without one it soon writes about writing.
    """
    name, other = random.sample(NAMES, 2)
    animal, beast = random.sample(ANIMALS, 2)
    adjective, quality = random.sample(ADJECTIVES, 2)
    thing, possession = random.sample(THINGS, 2)
    place, weather, room = random.choice(PLACES), random.choice(WEATHER), random.choice(ROOMS)
    deed, task, question = random.choice(DEEDS), random.choice(TASKS), random.choice(QUESTIONS)
    start = random.choice(STARTS)
    about = random.choice(
        (
            f"a {adjective} {animal} that {deed} {thing}",
            f"{name} and a {adjective} {animal}",
            f"{name}, who {deed} {thing}",
            f"a {adjective} {animal} and a {quality} {beast}",
            f"a {animal}, a {beast} and a {thing}",
            f"{name} and {other} near {place}",
        )
    )
    first = random.choice(
        (
            f"{start} {adjective} {animal}",
            f"{start} {animal} sat on the {thing}.",
            f"{start} {adjective} {animal} saw a {thing} near {place}.",
            f"Once upon a time, there was a {adjective} {animal} who lived near {place}.",
            f"There was once a {animal} who had a {thing}.",
            f"One day, {name} went to {place}.",
            f"{name} had a {adjective} {animal}.",
            f"{name} and {other} were friends.",
            f"{name} was {adjective}.",
            f"It was a day with {weather}, and {name}",
            f"In the morning, {name} took the {thing} and",
            f'"Where is my {thing}?" said {name}.',
            f'"I am {adjective}," said the {animal}.',
            f"My {animal} is {adjective}.",
            f"I have a {thing}. It",
            f"We went to {place}, and",
            f"Nobody knew why the {animal} was {adjective}.",
            f"Near {place} there lived a {adjective} {animal} and a {quality} {beast}.",
            f"A {animal} and a {beast} met near {place}.",
            f"When {name} came home, the {thing} was",
        )
    )
    simple = "Use simple words and short sentences."
    stories = (
        Order(f"Write a very short story for small children about {about}. {simple}", first),
        Order(f"Write a very short story for small children. {simple}", first),
        Order(f"Tell a short fable about {about}. It has a lesson at the end. {simple}", first),
        Order(f"Tell what happened to {about}. {simple}", first),
    )
    dialogues = (
        Order(f"Write a conversation between {name} and {other} about a {adjective} {thing}. {simple}", f"{name}:"),
        Order(
            f"Write a conversation between a {animal} and a {beast}. {simple}", f'"Good morning," said the {animal}.'
        ),
        Order(
            f"Write a conversation: {name} asks {other} for a {thing}. {simple}",
            f'"Do you have a {thing}?" asked {name}.',
        ),
    )
    descriptions = (
        Order(
            f"Describe a small {room} for small children. {simple}", f"The {room} is {adjective}. There is a {thing}"
        ),
        Order(f"Describe a {animal} for small children. {simple}", f"A {animal} is a"),
        Order(f"Describe {weather} for small children. {simple}", f"Today there is {weather} near {place}."),
        Order(f"Write in your diary about a day near {place}. {simple}", f"Today I saw a {animal}"),
        Order(f"Write a letter from {name} to {other} about a {thing}. {simple}", f"Dear {other},"),
    )
    explanations = (
        Order(f"Tell small children how to {task}. {simple}", random.choice(("First,", "To", "Take", "You need"))),
        Order(f"{question}? Answer for small children. {simple}", random.choice((f"{question}?", "Because", "It is"))),
        Order(
            f"Write three questions and answers about a {animal} for small children. {simple}", f"What does a {animal}"
        ),
        Order(f"What is a {thing} for? Answer for small children. {simple}", f"A {thing} is"),
        Order(f"What can one do with a {thing} and a {possession}? {simple}", f"You can put the {thing}"),
    )
    (kind,) = random.choices((stories, dialogues, descriptions, explanations), weights=(60, 13, 13, 14))
    return random.choice(kind)


def orders_of_one_length(random: Random, tokenizer: Tokenizer, n_texts: int) -> tuple[list[Order], Tensor]:
    """Orders with prompts of the same number of tokens, and those prompts, (B, T)."""
    by_length: dict[int, list[tuple[Order, tuple[int, ...]]]] = defaultdict(list)
    while True:
        one = order(random)
        ids = tokenizer.encode(one.prompt, special_tokens=True).ids
        alike = by_length[len(ids)]
        alike.append((one, ids))
        if len(alike) == n_texts:
            return [one for one, _ in alike], torch.tensor([ids for _, ids in alike])


class Remembered:
    """Keys and values of one layer for all texts of a batch: a Look that goes on from what it has seen."""

    def __init__(self, n_texts: int, n_tokens: int, model: GPT) -> None:
        shape = n_texts, model.config.n_kv_heads, n_tokens, model.config.d_head
        self.keys_BGSD = torch.empty(shape, dtype=model.dtype, device=model.device)
        self.values_BGSD = torch.empty_like(self.keys_BGSD)
        self.n_seen = 0

    def __call__(self, q_BHTD: Tensor, k_BGTD: Tensor, v_BGTD: Tensor) -> Tensor:
        seen, self.n_seen = self.n_seen, self.n_seen + k_BGTD.shape[2]
        self.keys_BGSD[:, :, seen : self.n_seen] = k_BGTD
        self.values_BGSD[:, :, seen : self.n_seen] = v_BGTD
        return fused_attention(q_BHTD, self.keys_BGSD[:, :, : self.n_seen], self.values_BGSD[:, :, : self.n_seen])

    def keep(self, rows_B: Tensor) -> None:
        """Forget all texts but these."""
        self.keys_BGSD, self.values_BGSD = self.keys_BGSD[rows_B], self.values_BGSD[rows_B]


@torch.inference_mode()
def sample(
    model: GPT, prompts_BT: Tensor, temperature_B: Tensor, *, ends: Tensor, n_most: int, generator: torch.Generator
) -> list[list[int]]:
    """What the model writes after each prompt, at most `n_most` tokens, up to the first of the tokens `ends`."""
    n_prompt = prompts_BT.shape[1]
    layers = [Remembered(len(prompts_BT), n_prompt + n_most, model) for _ in model.blocks]
    written: list[list[int]] = [[] for _ in prompts_BT]
    row_B = torch.arange(len(prompts_BT), device=model.device)  # whose text each row still in the batch is
    going_B = torch.ones_like(row_B, dtype=torch.bool)
    hidden_BTM = model.hidden(prompts_BT, attention_fns=layers)
    for n_written in range(n_most):
        token_B = draw(model.unembed(hidden_BTM[:, -1]).float() / temperature_B[row_B, None], generator)
        going_B = going_B & ~torch.isin(token_B, ends)
        for row, token in zip(row_B[going_B].tolist(), token_B[going_B].tolist(), strict=True):
            written[row].append(token)
        if not going_B.any():
            break
        if going_B.float().mean() < 0.9:  # those that have ended are carried along until moving the others is worth it
            row_B, token_B = row_B[going_B], token_B[going_B]
            for layer in layers:
                layer.keep(going_B)
            going_B = going_B[going_B]
        hidden_BTM = model.hidden(token_B[:, None], torch.tensor([n_prompt + n_written], device=model.device), layers)
    return written


def draw(logits_BV: Tensor, generator: torch.Generator) -> Tensor:
    """One token for each row: of the TOP_K likeliest, the fewest that together have TOP_P; (B,)."""
    best_BK, token_BK = logits_BV.topk(TOP_K)
    share_BK = best_BK.softmax(-1)
    before_BK = share_BK.cumsum(-1) - share_BK  # what the likelier ones have together
    chosen_B1 = share_BK.masked_fill(before_BK > TOP_P, 0.0).multinomial(1, generator=generator)
    return token_BK.gather(1, chosen_B1).squeeze(1)


def chosen(texts: Iterable[str]) -> Iterator[str]:
    """Texts without those that repeat themselves, or others; an unfinished last sentence is cut away.

    >>> list(chosen(["A cat sat on a mat and saw a dog. It", "A cat sat on a mat and saw a dog. Then", "No."]))
    ['A cat sat on a mat and saw a dog.']
    """
    seen: set[tuple[str, ...]] = set()
    for text in texts:
        ends = [end.end() for end in re.finditer(r'[.!?]["”]?(?=\s|$)', text)]
        whole = text[: ends[-1]].strip() if ends else ""
        words = whole.lower().split()
        runs = [tuple(words[i : i + N_GRAM]) for i in range(len(words) - N_GRAM + 1)]
        if not runs:
            continue
        said_twice = 1 - len(set(runs)) / len(runs)
        shared = sum(run in seen for run in runs) / len(runs)
        if said_twice <= MOST_SAID_TWICE and shared <= MOST_SHARED:
            seen.update(runs)
            yield whole


def main() -> None:
    """Write batch after batch, then choose."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=Path("data/stories"), help="folder of the texts")
    parser.add_argument("--cache", type=Path, default=user_cache_path("lookback"), help="where Lookback keeps weights")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batches", type=int, default=200)
    parser.add_argument("--texts", type=int, default=256, help="texts of a batch")
    parser.add_argument("--tokens", type=int, default=200, help="the most tokens of a text")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    console = Console()
    folder = catalogue("smollm2-135m")["smollm2-135m"].fetch(given.cache, lambda *_: None)
    model, tokenizer = load(folder, device=torch.device(given.device), dtype=torch.bfloat16)
    given.out.mkdir(parents=True, exist_ok=True)
    for number in range(given.batches):
        path = given.out / f"{number:05}.txt"
        if path.exists():
            continue
        started = time.monotonic()
        random = Random(f"{given.seed}-{number}")
        generator = torch.Generator(given.device).manual_seed(random.getrandbits(32))
        orders, prompts_BT = orders_of_one_length(random, tokenizer, given.texts)
        temperature_B = torch.tensor([random.uniform(*TEMPERATURES) for _ in orders])
        written = sample(
            model,
            prompts_BT.to(given.device),
            temperature_B.to(given.device),
            ends=torch.tensor(list(tokenizer.special.values()), device=given.device),
            n_most=given.tokens,
            generator=generator,
        )
        texts = [one.opening + tokenizer.decode(ids) for one, ids in zip(orders, written, strict=True)]
        write_whole(path, joined(texts).encode())
        n_tokens, seconds = sum(map(len, written)), time.monotonic() - started
        console.print(f"{path.name}: {len(texts)} texts, {n_tokens:,} tokens, {n_tokens / seconds:.0f} a second")
    texts = [text for path in sorted(given.out.glob("*.txt")) for text in parted(path.read_text("utf-8"))]
    kept = list(chosen(texts))
    write_whole(given.out.with_suffix(".txt"), joined(kept).encode())
    console.print(f"{given.out.with_suffix('.txt')}: {len(kept):,} of {len(texts):,} texts")


if __name__ == "__main__":
    main()
