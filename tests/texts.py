# ruff: noqa: E501  the lines are texts
"""Varied texts for the tokenizers: written by people, written by programs, and unusual ones."""

import random

HAND = (
    """
the fat cat sat on the mat| the fat cat|The Fat Cat|don't can't we'll I'm you've they'd it's 'S 'T|x'sx 'llama|naïve café|
1 22 333 4444 55555|in 1984, 2001 and 10,000.50|a1b2c3|3.14159265358979| 42|   42|x   42|½ ⅓ ² ³ ① Ⅷ ٣٤٥ ４２|
def f(x: int) -> list[int]:\n    return [x ** 2 for _ in range(10)]\n|if (a && b || !c) { return *p++; }|<b>x</b> &amp; "q"|
SELECT * FROM t WHERE id = 1; -- end|https://example.org/a?b=c&d=%20#e|\\n \\t \\\\ C:\\dir|{"k": [1, 2, {"v": null}]}|
快速的棕色狐狸跳过了懒狗。|今天是2024年5月1日|汉字かな交じり文、カタカナ|고양이가 매트 위에 앉았다|猫|
القطة السمينة جلست على السجادة|مرحبا بالعالم ١٢٣|שלום עולם|नमस्ते दुनिया|สวัสดีชาวโลก|Здравствуй, мир! 7|Γειά σου Κόσμε|გამარჯობა|
👍|👍🏽|👩‍👩‍👧‍👦 family|🏳️‍🌈|🇩🇪🇫🇷|❤️‍🔥|a👍b 👍 👍|🧑🏿‍🚀 2|é|e\u0301|ẛ̣|Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A͂|\u200b\u200c\u200d|\ufeffBOM|
 |  |   |\n|\n\n|\n\n2|\n 2|\r\n|\r\n3|a\n\nb|a \n b|a  b|a   1|  x|\t\tx|\tx 1|x |x  |x\n|x \n|x\n\n |1\n|1\n2|1 \n 2|
\u00a0|a\u00a0b|\u00a01|\u2003x|\u3000一|\u2028|\u0085|\x0b\x0c|\x1c1|-|--|...|…|!!!|?!|'|''|'s|''s|’s|"|`|$1|€5|#1|@x|a_b|_|__init__|
<|im_start|>user|<|im_end|>|<|endoftext|>|<|im_start|>1|<repo_name>|x<|im_end|>y|
a\x04b|!\x04!|\x04|\x06\x13\x14\x16\x1d|\x01\x02|\x7f|a\x16 1|\U00040000|x\U00050000y|\U000f0000|\U0010ffff|\U000e0041|\U0001f600\x04|
""".replace("\\n", "\n")
    .replace("\\t", "\t")
    .replace("\\r", "\r")
)

# Ranges of Unicode, with some from every plane.
RANGES = [
    (0x01, 0x20), (0x20, 0x7F), (0x7F, 0xA1), (0xA1, 0x250), (0x300, 0x370), (0x370, 0x590), (0x590, 0x700), (0x900, 0xE80),
    (0x1100, 0x1200), (0x2000, 0x2070), (0x2070, 0x2200), (0x2460, 0x2500), (0x3000, 0x3100), (0x4E00, 0xA000),
    (0xAC00, 0xD7A4), (0xE000, 0xE100), (0xFE00, 0xFE10), (0xFF00, 0xFFF0), (0x10000, 0x10400), (0x1D400, 0x1D800),
    (0x1F300, 0x1FB00), (0x20000, 0x2A6E0), (0x30000, 0x31350), *((plane << 16, (plane << 16) + 0xFFFE) for plane in range(4, 17)),
]  # fmt: skip
BITS = [
    " ",
    "  ",
    "\n",
    "\n\n",
    "\t",
    " \n",
    "1",
    "42",
    "7 ",
    " 7",
    "the",
    " cat",
    "ing",
    "'s",
    "'ll",
    "!",
    "...",
    "é",
    "👍",
    "猫",
]


def varied() -> list[str]:
    """More than a thousand different texts, the same ones every time."""
    generator = random.Random(38)
    texts = [text for text in HAND.split("|") if text]
    for first, last in RANGES:
        for n in (1, 1, 2, 3, 5, 8, 13):
            characters = [chr(generator.randrange(first, last)) for _ in range(n)]
            texts += ["".join(characters), " ".join(characters), "a" + "1".join(characters)]
    for _ in range(500):
        texts.append("".join(generator.choice(BITS) for _ in range(generator.randrange(2, 9))))
    return list(dict.fromkeys(texts))
