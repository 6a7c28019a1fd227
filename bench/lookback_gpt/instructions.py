"""Instructions for SmolLM2 to write short texts in simple English, put together from lists of words.

A text is begun for the model, so that texts begin in many ways. A whole first sentence keeps a small model on its
subject; without one it soon writes about writing.
"""

from dataclasses import dataclass
from random import Random


def _words(line: str) -> list[str]:
    return line.split(", ")


NAMES = _words(
    "Tom, Anna, Ben, Mia, Sam, Lily, Rosa, Jack, Emma, Leo, Nora, Finn, Ada, Omar, Zoe, Ravi, Ines, Kofi, Yuki, "
    "Carl, Ruth, Hugo, Maya, Paul, Clara, Ivan, Lena, Noah, Elsa, Amir, Tess, Luis, Grace, Oscar, Wanda, Felix, "
    "Hanna, Peter, Sue"
)
ANIMALS = _words(
    "cat, dog, mouse, fox, duck, cow, horse, pig, sheep, goat, rabbit, bear, wolf, owl, crow, frog, fish, bee, "
    "ant, snake, turtle, lion, elephant, monkey, hedgehog, squirrel, donkey, goose, robin, snail, whale, tiger, "
    "deer, spider, parrot, bat"
)
ADJECTIVES = _words(
    "fat, old, small, sad, happy, quiet, angry, clever, lazy, brave, shy, hungry, tired, kind, proud, young, "
    "thin, funny, lost, gentle, curious, busy, sleepy, silly, white, black, brown, red, grey, strong, slow, "
    "quick, careful, lonely"
)
OBJECTS = _words(
    "mat, hat, ball, book, chair, table, lamp, key, bag, cup, clock, coat, drum, kite, bell, rope, spoon, mirror, "
    "basket, blanket, boat, bucket, candle, map, letter, stone, shoe, ring, wheel, apple, cake, egg, loaf, "
    "bottle, broom, ladder, window, door, piano, bicycle"
)
PLACES = _words(
    "the kitchen, the garden, a forest, the river, the market, a school, the farm, the sea, a train, the park, a "
    "big city, the library, an old house, the hill, a barn, the shop, a cave, the beach, a bridge, the roof, the "
    "mountains, a boat, the hospital, a castle, the bus stop, the bakery, an island, the cellar, the meadow"
)
ACTIONS = _words(
    "finds a, loses a, wants a, makes a, breaks a, hides a, buys a, sees a, gives away a, steals a, dreams of a, "
    "carries a, repairs a, shares a, is afraid of a, sits on a, looks for a, paints a, throws a, opens a"
)
WEATHER = _words("rain, snow, wind, fog, sun, storm, frost, heat, thunder, clouds")
ROOMS = _words(
    "kitchen, bedroom, attic, classroom, workshop, library, shop, cellar, waiting room, barn, station, garden, office"
)
TASKS = _words(
    "boil an egg, plant a tree, wash a dog, make tea, bake bread, clean a window, tie a shoe, build a kite, write "
    "a letter, cross a street, light a fire, mend a sock, pack a bag, draw a cat, make soup, ride a bicycle, feed "
    "a hen, sweep a floor, set a table, find the way home, count money, learn a song, catch a fish, wrap a "
    "present, read a map, care for a plant"
)
QUESTIONS = _words(
    "Why is the sky blue, Why do cats sleep so much, How does a bird fly, What is the moon, Where does rain come "
    "from, Why is the sea salty, How do fish breathe, Why do leaves fall, What is a friend, How does a clock "
    "work, Why do we sleep, What is bread made of, How do seeds grow, Why does ice float, What is a shadow, How "
    "is paper made, Why do dogs bark, What is thunder, How do ships float, Why do we dream, What is wind, How "
    "does a key open a lock, What is the difference between a frog and a toad, Why do people tell stories, What "
    "does a farmer do, How do birds find their way, What is money for, Why is fire hot, How does a wheel help"
)
STARTS = _words(
    "The, One day, the, When the, At night, the, Every day, the, Long ago, the, Last summer, the, After lunch, the"
)
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"  # as in its fine-tuning
SIMPLE = "Use simple words and short sentences."

SUBJECTS = (
    "a {adjective} {animal} that {action} {object}",
    "{name} and a {adjective} {animal}",
    "{name}, who {action} {object}",
    "a {adjective} {animal} and a {adjective_2} {animal_2}",
    "a {animal}, a {animal_2} and a {object}",
    "{name} and {name_2} near {place}",
)
FIRST_SENTENCES = (
    "{start} {adjective} {animal}",
    "{start} {animal} sat on the {object}.",
    "{start} {adjective} {animal} saw a {object} near {place}.",
    "Once upon a time, there was a {adjective} {animal} who lived near {place}.",
    "There was once a {animal} who had a {object}.",
    "One day, {name} went to {place}.",
    "{name} had a {adjective} {animal}.",
    "{name} and {name_2} were friends.",
    "{name} was {adjective}.",
    "It was a day with {weather}, and {name}",
    "In the morning, {name} took the {object} and",
    '"Where is my {object}?" said {name}.',
    '"I am {adjective}," said the {animal}.',
    "My {animal} is {adjective}.",
    "I have a {object}. It",
    "We went to {place}, and",
    "Nobody knew why the {animal} was {adjective}.",
    "Near {place} there lived a {adjective} {animal} and a {adjective_2} {animal_2}.",
    "A {animal} and a {animal_2} met near {place}.",
    "When {name} came home, the {object} was",
)

# instruction, and the opening of the text; SIMPLE is added to each instruction
STORIES = (
    ("Write a very short story for small children about {subject}.", "{first_sentence}"),
    ("Write a very short story for small children.", "{first_sentence}"),
    ("Tell a short fable about {subject}. It has a lesson at the end.", "{first_sentence}"),
    ("Tell what happened to {subject}.", "{first_sentence}"),
)
DIALOGUES = (
    ("Write a conversation between {name} and {name_2} about a {adjective} {object}.", "{name}:"),
    ("Write a conversation between a {animal} and a {animal_2}.", '"Good morning," said the {animal}.'),
    ("Write a conversation: {name} asks {name_2} for a {object}.", '"Do you have a {object}?" asked {name}.'),
)
DESCRIPTIONS = (
    ("Describe a small {room} for small children.", "The {room} is {adjective}. There is a {object}"),
    ("Describe a {animal} for small children.", "A {animal} is a"),
    ("Describe {weather} for small children.", "Today there is {weather} near {place}."),
    ("Write in your diary about a day near {place}.", "Today I saw a {animal}"),
    ("Write a letter from {name} to {name_2} about a {object}.", "Dear {name_2},"),
)
EXPLANATIONS = (
    ("Tell small children how to {task}.", "{task_opening}"),
    ("{question}? Answer for small children.", "{answer_opening}"),
    ("Write three questions and answers about a {animal} for small children.", "What does a {animal}"),
    ("What is a {object} for? Answer for small children.", "A {object} is"),
    ("What can one do with a {object} and a {object_2}?", "You can put the {object}"),
)
KINDS = {STORIES: 60, DIALOGUES: 13, DESCRIPTIONS: 13, EXPLANATIONS: 14}  # percent of the texts


@dataclass(frozen=True)
class Instruction:
    """What SmolLM2 is asked to write, and how its text begins."""

    text: str
    opening: str

    @property
    def prompt(self) -> str:
        """The dialogue in SmolLM2's chat format, up to the point from which the model writes."""
        turns = (
            f"<|im_start|>{role}\n{message}<|im_end|>\n" for role, message in (("system", SYSTEM), ("user", self.text))
        )
        return f"{''.join(turns)}<|im_start|>assistant\n{self.opening}"


def draw_instruction(random: Random) -> Instruction:
    """A random instruction of a random kind, see KINDS."""
    words = _draw_words(random)
    (kind,) = random.choices(list(KINDS), weights=list(KINDS.values()))
    text, opening = random.choice(kind)
    return Instruction(f"{text.format(**words)} {SIMPLE}", opening.format(**words))


def _draw_words(random: Random) -> dict[str, str]:
    """A word or phrase for each placeholder of the templates."""
    words: dict[str, str] = {}
    for key, choices in (("name", NAMES), ("animal", ANIMALS), ("adjective", ADJECTIVES), ("object", OBJECTS)):
        words[key], words[f"{key}_2"] = random.sample(choices, 2)
    for key, choices in (
        ("place", PLACES),
        ("weather", WEATHER),
        ("room", ROOMS),
        ("action", ACTIONS),
        ("task", TASKS),
        ("question", QUESTIONS),
        ("start", STARTS),
    ):
        words[key] = random.choice(choices)
    words["subject"] = random.choice(SUBJECTS).format(**words)
    words["first_sentence"] = random.choice(FIRST_SENTENCES).format(**words)
    words["task_opening"] = random.choice(("First,", "To", "Take", "You need"))
    words["answer_opening"] = random.choice((f"{words['question']}?", "Because", "It is"))
    return words
