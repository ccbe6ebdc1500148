"""Paints somebody who sits, bends or rides a bicycle, with the seat or the bicycle, which count as background."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

from .canvas import BACKGROUND, HEAD, LEGS, TORSO, Canvas, Point, colour
from .clothes import leg_texture, top_texture
from .figure import FLARE, Figure
from .identity import Identity
from .pose import SHOULDER, Joint, Limb, Placement
from .posture import BARS_Y, BARS_Z, PEDALS_Y, WHEEL, Posture, project

_TYRE = np.array((34, 34, 36), np.float32)


def draw_posed(
    canvas: Canvas,
    identity: Identity,
    place: Placement,
    posture: Posture,
    *,
    light: float,
    prop_rgb: np.ndarray,
) -> None:
    """Paint a person in a posture, and what they sit on.

    Args:
        canvas: what to paint on, in place.
        identity: who.
        place: of the posture, in pixels (`posture.fit_posture`).
        posture: of the body.
        light: shading from the left (negative) or the right, about -.35..0.35.
        prop_rgb: (3,) float32, colour of the seat or of the bicycle's frame.
    """
    _PosedFigure(canvas, identity, place, posture, light, prop_rgb).paint()


class _PosedFigure(Figure):
    """A figure whose upper body is painted as if it stood, through `at`, which turns it about the hips."""

    def __init__(
        self,
        canvas: Canvas,
        identity: Identity,
        place: Placement,
        posture: Posture,
        light: float,
        prop_rgb: np.ndarray,
    ) -> None:
        super().__init__(canvas, identity, place, posture, light, labelled=True)
        self.posture, self.prop_rgb = posture, prop_rgb
        self.frame = "joints"
        crown, upright = self.through("trunk", 0, 0.078, 0.016), place.at(posture, 0, 0.078, 0.016)
        if posture.kind == "bend" and self.facing > 0.35:
            self.head_view = math.pi  # one looks at the hair
        self.head_off = crown[0] - upright[0], crown[1] - upright[1]

    def through(self, frame: str, x: float, y: float, z: float) -> Point:
        """The pixel of a point: of a joint ("joints"), of the upper body ("trunk"), or of the head, held upright."""
        if frame == "head":
            across, down = self.place.at(self.posture, x, y, z)
            return across + self.head_off[0], down + self.head_off[1]
        joint = self.posture.trunk(x, y, z) if frame == "trunk" else (x, y, z)
        return project(self.place, self.posture, joint)

    def at(self, x: float, y: float, z: float) -> Point:
        return self.through(self.frame, x, y, z)

    def row(self, y: float) -> float:
        return super().row(y) + (self.head_off[1] if self.frame == "head" else 0.0)

    def paint(self) -> None:
        kind, (first_leg, last_leg), (first_arm, last_arm) = self.posture.kind, self.posture.legs, self.posture.arms
        from_front, from_back = self.facing > 0.35, self.facing < -0.35
        legs_last = not from_back and kind != "bend"
        self.seat(behind=True)
        if kind == "cycle" and from_front:
            self.rear_wheel()
        if kind == "cycle" and from_back:
            self.front_wheel()
        if self.facing > 0.2:
            self.backpack()
        if not from_back or kind == "cycle":
            self.arm(first_arm, 0.82)
        if kind == "bend" and from_back:
            self.hung_head()
        self.leg(first_leg, 0.8)
        if kind == "cycle" and not from_front and not from_back:
            self.rear_wheel()
            self.front_wheel()
        if not legs_last:
            self.leg(last_leg, 1.0)
        self.hips()
        self.trunk()
        if legs_last:
            if from_front:
                self.leg(first_leg, 0.92)
            self.leg(last_leg, 1.0)
        if self.facing <= 0.2:
            self.backpack()
        if self.who.bags.shoulder_bag != "none" and kind != "bend":
            self.frame = "trunk"
            self.shoulder_bag()
            self.frame = "joints"
        if kind == "cycle" and from_front:
            self.front_wheel()
        if kind == "cycle" and from_back:
            self.rear_wheel()
        if from_back and kind != "cycle":
            self.arm(first_arm, 0.9)
        self.arm(last_arm, 1.0)
        if not (kind == "bend" and from_back):
            self.hung_head()
        self.seat(behind=False)

    def hung_head(self) -> None:
        neck, shoulders = self.through("trunk", 0, 0.12, 0), self.through("trunk", 0, 0.19, 0)
        wide, skin = self.place.wide, colour(self.who.body.skin_rgb)
        self.canvas.capsule(neck, shoulders, wide * 0.026, wide * 0.03, skin * 0.85, self.part(HEAD), self.light)
        self.frame = "head"
        self.head()
        self.frame = "joints"

    def arm(self, limb: Limb, factor: float, *, bag: bool = False) -> None:
        super().arm(limb, factor, bag=bag)

    def hips(self) -> None:
        who = self.who
        girth = 0.5 + 0.5 * who.body.girth
        middle = self.through("trunk", 0, self.pose.hip - 0.005, -0.01)
        half = self.half(0.1 * girth, 0.086 * who.body.girth)
        texture = leg_texture(who, "hips", 1.0)
        self.canvas.ellipse(
            middle,
            half,
            self.place.height * 0.072,
            lambda u_1w, v_h1: texture(*np.broadcast_arrays(u_1w, v_h1)),
            self.part(LEGS),
            self.light,
        )
        if who.bottom_cut.kind == "skirt" or who.top_cut.kind == "dress":
            self.lap()

    def lap(self) -> None:
        """A skirt, or the skirt of a dress, over the thighs."""
        who, wide = self.who, self.place.wide
        dress = who.top_cut.kind == "dress"
        rgb = colour(who.top_colour.rgb if dress else who.bottom_colour.rgb)
        reach = 0.55 + 0.4 * (who.top_cut.length if dress else who.bottom_cut.length)
        for limb in self.posture.legs:
            (hx, hy, hz), (kx, ky, kz), _ = limb.joints
            end = (hx + reach * (kx - hx), hy + reach * (ky - hy), hz + reach * (kz - hz))
            radius = wide * 0.062 * (0.5 + 0.5 * who.body.girth)
            part = self.part(TORSO if dress else LEGS)
            self.canvas.capsule(self.at(hx, hy, hz), self.at(*end), radius, radius * 1.05, rgb, part, self.light)

    def leg(self, limb: Limb, factor: float) -> None:
        super().leg(limb, factor)
        if self.who.bottom_cut.kind == "skirt" or self.who.top_cut.kind == "dress":
            self.lap()

    def trunk(self) -> None:
        who, hip = self.who, self.pose.hip
        girth = who.body.girth
        chest = self.half(self.pose.shoulder_half * 1.04, 0.08 * girth)
        waist = max(self.half(0.094 * girth, 0.078 * girth), chest * 0.78)
        hips = self.half(0.102 * (0.5 + 0.5 * girth), 0.09 * girth)
        flare = min(FLARE.get(who.top_cut.kind, 1.02), 1.12)
        first, last = SHOULDER - 0.04, hip + 0.012 + 0.02 * who.top_cut.length
        rows = [first, SHOULDER - 0.022, SHOULDER - 0.002, SHOULDER + 0.035, SHOULDER + 0.1]
        rows += [0.5 * (SHOULDER + hip) + 0.07, hip - 0.02, last]
        halves = [chest * 0.32, chest * 0.58, chest * 0.84, chest, chest * 1.02, waist, hips, hips * flare * 0.96]
        self.canvas.tube(
            self.through("trunk", 0, first, 0),
            self.through("trunk", 0, last, 0),
            [(row - first) / (last - first) for row in rows],
            halves,
            top_texture(who, self.pose.view),
            self.part(TORSO),
            self.light,
        )

    def backpack(self) -> None:
        if self.who.bags.backpack == "none":
            return
        rgb, radius = colour(self.who.bags.backpack_rgb), self.half(0.082, 0.055)
        upper, lower = (self.through("trunk", 0, y, -0.105) for y in (0.25, 0.37))
        self.canvas.capsule(upper, lower, radius * 0.9, radius, rgb, self.part(TORSO), self.light)
        if self.facing < 0.2:
            middle = self.through("trunk", 0, 0.36, -0.12)
            self.canvas.ellipse(middle, radius * 0.7, radius * 0.5, rgb * 0.72, self.part(TORSO), self.light)

    # ---- what they sit on

    def line(self, start: Joint, end: Joint, thick: float, rgb: np.ndarray) -> None:
        radius = max(thick * self.place.height, 0.7)
        self.canvas.capsule(self.at(*start), self.at(*end), radius, radius, rgb, BACKGROUND)

    def seat(self, *, behind: bool) -> None:
        """A bench: planks, legs, and a back, which stands in front of people who turn theirs to the camera."""
        if self.posture.kind != "sit":
            return
        rgb, low, z = self.prop_rgb, self.posture.hip_y + 0.062, self.posture.hip_z
        back_is_far = self.facing > -0.2
        if behind:
            for x in (-0.36, 0.36):
                for depth in (-0.12, 0.16):
                    self.line((x, low, z + depth), (x, 0.99, z + depth), 0.011, rgb * 0.6)
            for depth in (-0.12, -0.03, 0.06, 0.15):
                self.line((-0.42, low, z + depth), (0.42, low, z + depth), 0.019, rgb * (0.8 + 0.1 * (depth > 0)))
        if behind == back_is_far:
            for x in (-0.36, 0.36):
                self.line((x, low, z - 0.15), (x, low - 0.27, z - 0.19), 0.011, rgb * 0.6)
            for up in (0.12, 0.19, 0.26):
                self.line((-0.42, low - up, z - 0.18), (0.42, low - up, z - 0.18), 0.021, rgb * (0.75 + up))

    def wheel(self, z: float) -> None:
        turns = [2 * math.pi * k / 20 for k in range(21)]
        rim = [(0.0, 1 - WHEEL - WHEEL * math.sin(turn), z + WHEEL * math.cos(turn)) for turn in turns]
        for start, end in pairwise(rim):
            self.line(start, end, 0.012, _TYRE)
        self.line((0.0, 1 - WHEEL, z), (0.0, 1 - WHEEL, z), 0.014, _TYRE * 2)

    def rear_wheel(self) -> None:
        """The wheel, the frame behind the pedals, and the saddle."""
        self.wheel(-0.27)
        hub, pedals, seat = (0.0, 1 - WHEEL, -0.27), (0.0, PEDALS_Y, 0.0), (0.0, self.posture.hip_y + 0.065, -0.13)
        for start, end in ((hub, pedals), (hub, seat), (pedals, seat)):
            self.line(start, end, 0.011, self.prop_rgb)
        self.line((0.0, seat[1], -0.2), (0.0, seat[1], -0.06), 0.018, _TYRE)
        for side in (-1, 1):
            ankle = next(limb.joints[2] for limb in self.posture.legs if limb.side == side)
            self.line((side * 0.03, PEDALS_Y, 0.0), (side * 0.05, ankle[1] + 0.04, ankle[2] + 0.02), 0.007, _TYRE * 2)

    def front_wheel(self) -> None:
        """The wheel, the fork, the frame before the pedals, and the handlebars."""
        self.wheel(0.35)
        hub, pedals, seat = (0.0, 1 - WHEEL, 0.35), (0.0, PEDALS_Y, 0.0), (0.0, self.posture.hip_y + 0.085, -0.13)
        head = (0.0, BARS_Y + 0.09, 0.25)
        for start, end in ((hub, head), (head, pedals), (head, seat)):
            self.line(start, end, 0.011, self.prop_rgb)
        bars = (0.0, BARS_Y, 0.23)
        self.line(head, bars, 0.009, _TYRE)
        for side in (-1, 1):
            self.line(bars, (side * 0.12, BARS_Y, BARS_Z), 0.009, _TYRE)
