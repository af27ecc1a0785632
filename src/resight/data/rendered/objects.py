"""Which objects there are: number k of a seed is always the same object.

Objects come in families of four look-alikes: one kind, one shape, one palette, one layout;
they differ in emblem, word and (in pairs) pattern. A family lies within one split, so that
look-alikes compete in the test gallery.
"""

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from resight.data.rendered.bodies import Part
from resight.data.rendered.emblems import EMBLEMS
from resight.data.rendered.faces import LAYOUTS, PATTERNS, Palette, Print
from resight.data.rendered.kinds import BUILDERS

# Any ten consecutive objects hold 5 / 1 / 4 of the splits, whatever the number of objects.
SPLITS = ("train", "test", "train", "test", "val", "train", "test", "train", "test", "train")
FAMILY = 4

PALETTES = (
    Palette((240, 232, 210), (196, 60, 48), (28, 92, 140), (52, 36, 34)),
    Palette((28, 52, 104), (232, 188, 52), (238, 238, 232), (240, 240, 236)),
    Palette((238, 240, 236), (52, 132, 84), (206, 70, 56), (26, 58, 40)),
    Palette((36, 140, 140), (236, 144, 56), (246, 238, 222), (252, 246, 232)),
    Palette((44, 42, 46), (200, 164, 84), (232, 226, 214), (236, 228, 208)),
    Palette((242, 192, 204), (248, 246, 242), (176, 44, 92), (96, 26, 60)),
    Palette((160, 204, 232), (246, 248, 250), (38, 74, 150), (24, 40, 84)),
    Palette((110, 70, 150), (190, 214, 84), (248, 240, 226), (250, 246, 236)),
    Palette((226, 204, 166), (134, 88, 56), (46, 106, 82), (66, 42, 28)),
    Palette((204, 206, 208), (98, 102, 110), (208, 50, 44), (40, 42, 48)),
)

_CONSONANTS, _VOWELS = "BDFGHKLMNPRSTVZJ", "AEIOU"
_WORDS = len(_CONSONANTS) ** 3 * len(_VOWELS) ** 2
_STRIDE = 61_003  # has no factor in common with _WORDS, so no word comes twice


@dataclass(frozen=True)
class Place:
    """Where object number `number` stands: its split and its family within the split."""

    number: int
    kind: str
    split: str
    family: tuple[int, int]  # which split, which family there
    member: int  # 0 .. FAMILY - 1

    @property
    def name(self) -> str:
        """The object's name, as in the index and the folder."""
        return f"{self.kind}-{self.number:04d}"


@dataclass(frozen=True, eq=False)
class Object:
    """An object ready to be put before a camera."""

    place: Place
    parts: list[Part] = field(repr=False)


def place_of(number: int) -> Place:
    """The kind, split and family of an object; depends on nothing but its number."""
    block, slot = divmod(number, len(SPLITS))
    split = SPLITS[slot]
    rank = block * SPLITS.count(split) + SPLITS[:slot].count(split)
    which = ("train", "val", "test").index(split)
    family, member = divmod(rank, FAMILY)
    kind = list(BUILDERS)[(family + 3 * which) % len(BUILDERS)]
    return Place(number, kind, split, (which, family), member)


def word_of(seed: int, number: int) -> str:
    """A made-up word, no two numbers of a seed alike (up to 102,400 objects)."""
    index = (number * _STRIDE + seed * 7_907) % _WORDS
    letters = []
    for place in range(5):
        alphabet = _VOWELS if place % 2 else _CONSONANTS
        index, letter = divmod(index, len(alphabet))
        letters.append(alphabet[letter])
    return "".join(letters)


def print_of(seed: int, place: Place) -> Print:
    """What is printed on the object."""
    key = (seed, 1, *place.family)
    shared = np.random.default_rng(key)
    palette = PALETTES[shared.integers(len(PALETTES))]
    layout = str(shared.choice(list(LAYOUTS)))
    patterns = shared.permutation(list(PATTERNS))
    emblems = shared.permutation(list(EMBLEMS))
    pair = place.member // 2
    own = np.random.default_rng((seed, 2, place.number))
    return Print(
        palette=palette,
        layout=layout,
        pattern=str(patterns[pair]),
        pattern_key=(*key, pair),
        emblem=str(emblems[place.member]),
        emblem_key=(seed, 3, place.number),
        word=word_of(seed, place.number),
        note=f"No {own.integers(10, 100)}",
    )


@lru_cache(maxsize=4)
def build(seed: int, number: int) -> Object:
    """Object `number` of `seed`, its faces drawn."""
    place = place_of(number)
    proportions = np.random.default_rng((seed, 4, *place.family))
    return Object(place, BUILDERS[place.kind](print_of(seed, place), proportions))
