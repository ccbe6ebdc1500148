"""Who a drawn pedestrian is: body and gait, head, clothes, shoes and bags, and near-copies of a person.

An identity is a tuple of groups of traits; a twin takes over all groups of its model but a few.
Colours are (red, green, blue) from 0 to 255, lengths are fractions of a typical body height.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from .palette import BOTTOM, HAIR, SHOE, SKIN, TOP, Colour, colour_distance, draw_colour, draw_named, pick


@dataclass(frozen=True)
class Body:
    height: float
    girth: float
    legs: float
    shoulders: float
    stride: float
    swing: float
    stoop: float
    elbow: float
    skin: str
    skin_rgb: Colour


@dataclass(frozen=True)
class Head:
    hair: str
    hair_colour: str
    hair_rgb: Colour
    hat: str
    hat_rgb: Colour


@dataclass(frozen=True)
class TopCut:
    kind: str
    length: float
    opening: float


@dataclass(frozen=True)
class TopColour:
    name: str
    rgb: Colour


@dataclass(frozen=True)
class Pattern:
    kind: str
    name: str
    rgb: Colour
    frequency: float
    phase: float
    duty: float


@dataclass(frozen=True)
class BottomCut:
    kind: str
    length: float
    width: float
    detail: str
    tights: bool


@dataclass(frozen=True)
class BottomColour:
    name: str
    rgb: Colour


@dataclass(frozen=True)
class Shoes:
    kind: str
    name: str
    rgb: Colour
    socks: bool


@dataclass(frozen=True)
class Bags:
    backpack: str
    backpack_rgb: Colour
    shoulder_bag: str
    shoulder_bag_rgb: Colour
    shoulder_side: int
    handbag: str
    handbag_rgb: Colour
    hand_side: int


@dataclass(frozen=True)
class Identity:
    """One person. The fields are the groups of traits that twins share or differ in."""

    body: Body
    head: Head
    top_cut: TopCut
    top_colour: TopColour
    pattern: Pattern
    bottom_cut: BottomCut
    bottom_colour: BottomColour
    shoes: Shoes
    bags: Bags


GROUPS = tuple(field.name for field in fields(Identity))
VISIBLE_GROUPS = tuple(name for name in GROUPS if name != "body")
SMALL_GROUPS = ("head", "pattern", "shoes", "bags")
"""groups of traits of which each shows on a small piece of the body"""


def draw_identity(rng: np.random.Generator) -> Identity:
    """A person at random."""
    skin, skin_rgb = draw_named(rng, SKIN)
    hair_colour, hair_rgb = draw_named(rng, HAIR)
    body = Body(
        height=float(np.clip(rng.normal(1, 0.035), 0.92, 1.07)),
        girth=float(np.clip(rng.normal(1.06, 0.13), 0.84, 1.42)),
        legs=float(np.clip(rng.normal(0, 0.012), -0.025, 0.025)),
        shoulders=float(np.clip(rng.normal(1, 0.07), 0.84, 1.16)),
        stride=float(rng.uniform(0.65, 1.15)),
        swing=float(rng.uniform(0.5, 1.2)),
        stoop=float(np.clip(rng.normal(0.01, 0.02), -0.03, 0.06)),
        elbow=float(rng.uniform(0.1, 0.7)),
        skin=skin,
        skin_rgb=skin_rgb,
    )
    head = Head(
        hair=pick(rng, short=44, bald=5, long=20, bun=7, ponytail=10, bob=14),
        hair_colour=hair_colour,
        hair_rgb=hair_rgb,
        hat=pick(rng, none=84, cap=10, beanie=6),
        hat_rgb=draw_colour(rng, TOP)[1],
    )
    top_cut = TopCut(
        kind=pick(rng, tshirt=34, shirt=18, jacket=19, coat=9, dress=8, hoodie=12),
        length=float(rng.uniform(0, 1)),
        opening=float(rng.uniform(0.15, 0.5)),
    )
    top_name, top_rgb = draw_colour(rng, TOP)
    second_name, second_rgb = draw_colour(rng, TOP)
    while colour_distance(top_rgb, second_rgb) < 150:
        second_name, second_rgb = draw_colour(rng, TOP)
    pattern = Pattern(
        kind=pick(rng, plain=36, stripes=13, pinstripes=5, checks=9, block=11, print=13, dots=4, sleeves=9),
        name=second_name,
        rgb=second_rgb,
        frequency=float(rng.uniform(3.5, 7)),
        phase=float(rng.uniform(0, 1)),
        duty=float(rng.uniform(0.35, 0.6)),
    )
    kind = (
        pick(rng, leggings=40, bare=60)
        if top_cut.kind == "dress"
        else pick(rng, trousers=62, shorts=18, skirt=12, leggings=8)
    )
    bottom_cut = BottomCut(
        kind=kind,
        length=float(rng.uniform(0, 1)),
        width=float(rng.uniform(0.92, 1.2)),
        detail=pick(rng, plain=68, stripe=14, faded=18),
        tights=bool(rng.random() < 0.5),
    )
    shoe_name, shoe_rgb = draw_colour(rng, SHOE)
    shoes = Shoes(kind=pick(rng, shoes=86, boots=14), name=shoe_name, rgb=shoe_rgb, socks=bool(rng.random() < 0.3))
    return Identity(
        body,
        head,
        top_cut,
        TopColour(top_name, top_rgb),
        pattern,
        bottom_cut,
        BottomColour(*draw_colour(rng, BOTTOM)),
        shoes,
        _bags(rng),
    )


def _bags(rng: np.random.Generator) -> Bags:
    def bag(chance: float) -> tuple[str, Colour]:
        name, rgb = draw_colour(rng, SHOE if rng.random() < 0.5 else TOP)
        return (name if rng.random() < chance else "none"), rgb

    backpack, shoulder, hand = bag(0.26), bag(0.16), bag(0.13)
    sides = [1 if rng.random() < 0.5 else -1 for _ in range(2)]
    return Bags(*backpack, *shoulder, sides[0], *hand, sides[1])


def draw_twin(
    rng: np.random.Generator, model: Identity, *, changes: int, visible: Sequence[str] = VISIBLE_GROUPS
) -> Identity:
    """A near-copy of `model`: the same traits but for at most `changes` groups, the first of them of `visible`.

    `changes` 0 gives the same look: such a pair cannot be told apart.
    """
    order = [visible[int(rng.integers(len(visible)))]] if changes else []
    order += [name for name in rng.permutation(list(GROUPS)).tolist() if name not in order][: max(changes - 1, 0)]
    twin = model
    for name in order:
        for _ in range(20):
            other = draw_identity(rng)
            if _visibly_different(model, other, name):
                twin = replace(twin, **{name: getattr(other, name)})
                break
    return twin


def _visibly_different(a: Identity, b: Identity, group: str) -> bool:
    x, y = getattr(a, group), getattr(b, group)
    if group in ("top_colour", "bottom_colour", "shoes"):
        return colour_distance(x.rgb, y.rgb) > 110
    if group == "head":
        return x.hair != y.hair or x.hat != y.hat or colour_distance(x.hair_rgb, y.hair_rgb) > 110
    if group == "bags":
        return (x.backpack, x.shoulder_bag, x.handbag) != (y.backpack, y.shoulder_bag, y.handbag)
    return group == "body" or x.kind != y.kind


def attributes(identity: Identity) -> dict[str, str | bool | float]:
    """A person's attributes, for attributes.json: kinds and colours by name, yes or no, and the body in numbers."""
    who = identity
    plain = who.pattern.kind == "plain" and who.top_cut.kind not in ("jacket", "coat")
    bare = who.bottom_cut.kind == "bare"
    return {
        "height": round(who.body.height, 3),
        "girth": round(who.body.girth, 3),
        "skin": who.body.skin,
        "hair": who.head.hair,
        "hair_colour": who.head.hair_colour,
        "hat": who.head.hat,
        "top": who.top_cut.kind,
        "top_colour": who.top_colour.name,
        "pattern": who.pattern.kind,
        "pattern_colour": "none" if plain else who.pattern.name,
        "bottom": who.bottom_cut.kind,
        "bottom_colour": "none" if bare else who.bottom_colour.name,
        "shoes": who.shoes.kind,
        "shoes_colour": who.shoes.name,
        "backpack": who.bags.backpack,
        "shoulder_bag": who.bags.shoulder_bag,
        "handbag": who.bags.handbag,
    }
