"""Paints one person: legs, garments, bags, arms and head in the order of their depth."""

from __future__ import annotations

import math

from .canvas import BACKGROUND, HEAD, LEGS, SHOES, TORSO, Canvas, colour
from .clothes import head_texture, leg_texture, sleeve_texture, top_texture
from .identity import Identity
from .pose import SHOULDER, Limb, Placement, Pose, stand

_LONG_SLEEVES = ("shirt", "jacket", "coat", "hoodie")
FLARE = {"coat": 1.22, "dress": 1.32, "jacket": 1.12, "hoodie": 1.1, "shirt": 1.05}


def draw_figure(
    canvas: Canvas,
    identity: Identity,
    place: Placement,
    *,
    view: float,
    phase: float,
    light: float,
    labelled: bool = True,
) -> None:
    """Paint a person.

    Args:
        canvas: what to paint on, in place.
        identity: who.
        place: where the crown and the axis of the body are, and how large it is, in pixels.
        view: the angle the person turned, radians; 0 faces the camera.
        phase: of the walk, radians.
        light: shading from the left (negative) or the right, about -.35..0.35.
        labelled: False paints the person as part of the background (passers-by).
    """
    figure = Figure(canvas, identity, place, stand(identity, view=view, phase=phase), light, labelled)
    figure.paint()


def fit(
    identity: Identity,
    *,
    view: float,
    phase: float,
    top: float,
    height: float,
    centre: float,
    width: float,
    narrowest: float = 1.25,
) -> Placement:
    """Place a person so that the box around the body is `width` pixels wide about `centre`, within limits.

    A body height across is at least `narrowest` times as many pixels as a body height down.
    """
    pose = stand(identity, view=view, phase=phase)
    left, right = pose.extent()
    wide = min(max(width / (right - left), narrowest * height), 1.62 * height)
    return Placement(x=centre - wide * 0.5 * (left + right), top=top, height=height, wide=wide)


class Figure:
    """A walking person, painted part by part; `posed_figure` paints other postures with the same parts."""

    def __init__(
        self, canvas: Canvas, identity: Identity, place: Placement, pose: Pose, light: float, labelled: bool
    ) -> None:
        self.canvas, self.who, self.place, self.pose, self.light = canvas, identity, place, pose, light
        self.labelled = labelled
        self.facing, self.sideways = math.cos(pose.view), math.sin(pose.view)
        self.head_view = pose.view

    def part(self, part: int) -> int:
        return part if self.labelled else BACKGROUND

    def at(self, x: float, y: float, z: float) -> tuple[float, float]:
        return self.place.at(self.pose, x, y, z)

    def row(self, y: float) -> float:
        return self.place.top + self.place.height * y

    def half(self, lateral: float, frontal: float) -> float:
        return self.place.wide * self.pose.half(lateral, frontal)

    def paint(self) -> None:
        bags = self.who.bags
        seen_from_front = self.facing > 0.2
        if bags.backpack != "none" and seen_from_front:
            self.backpack()
        far_arm, near_arm = self.pose.arms
        if abs(self.sideways) > 0.4:
            self.arm(far_arm, 0.8)
        for limb, factor in zip(self.pose.legs, (0.8, 1.0), strict=True):
            self.leg(limb, factor)
        self.hips()
        self.trunk()
        if bags.backpack != "none" and not seen_from_front:
            self.backpack()
        if bags.shoulder_bag != "none":
            self.shoulder_bag()
        if abs(self.sideways) <= 0.4:
            self.arm(far_arm, 0.92)
        self.arm(near_arm, 1.0)
        self.head()

    def leg(self, limb: Limb, factor: float) -> None:
        who, wide, height = self.who, self.place.wide, self.place.height
        cut = who.bottom_cut
        girth = 0.5 + 0.5 * who.body.girth
        cloth = cut.width if cut.kind == "trousers" else 0.9
        hip, knee, ankle = (self.at(*joint) for joint in limb.joints)
        knee_r = wide * girth * cloth * 0.037
        ankle_r = wide * girth * (0.031 * cut.width if cut.kind == "trousers" else 0.021)
        thigh_r = wide * girth * 0.05 * (cut.width if cut.kind in ("trousers", "shorts") else 0.94)
        light, legs = self.light, self.part(LEGS)
        self.canvas.capsule(hip, knee, thigh_r, knee_r, leg_texture(who, "thigh", factor), legs, light)
        self.canvas.capsule(knee, ankle, knee_r, ankle_r, leg_texture(who, "shin", factor), legs, light)
        rgb, shoes = colour(who.shoes.rgb, factor), self.part(SHOES)
        if who.shoes.kind == "boots":
            middle = (knee[0] + 0.5 * (ankle[0] - knee[0]), knee[1] + 0.5 * (ankle[1] - knee[1]))
            self.canvas.capsule(middle, ankle, ankle_r * 1.25, ankle_r * 1.2, rgb, shoes, light)
        x, y, z = limb.joints[2]
        heel, toe = self.at(x, y + 0.018, z - 0.018), self.at(x * 1.12, y + 0.024, z + 0.075)
        drop = height * 0.012 * max(self.facing, 0.0)
        self.canvas.capsule(heel, (toe[0], toe[1] + drop), height * 0.029, height * 0.025, rgb, shoes, light * 0.5)

    def hips(self) -> None:
        who, place, hip = self.who, self.place, self.pose.hip
        middle = self.at(0, hip, 0)[0]
        girth = 0.5 + 0.5 * who.body.girth
        half = self.half(0.1 * girth, 0.082 * who.body.girth)
        legs, texture = self.part(LEGS), leg_texture(who, "hips", 1.0)
        rows = [self.row(hip - 0.07), self.row(hip + 0.01), self.row(hip + 0.07)]
        self.canvas.profile(rows, [middle] * 3, [half * 0.94, half, half * 0.9], texture, legs, self.light)
        if who.bottom_cut.kind == "skirt":
            hem = 0.6 + 0.17 * who.bottom_cut.length + who.body.legs
            flare = half * (1.05 + 0.4 * who.bottom_cut.width * (who.bottom_cut.length + 0.3))
            rows = [self.row(hip - 0.07), self.row(hip), self.row(hem)]
            self.canvas.profile(
                rows, [middle] * 3, [half * 0.92, half, min(flare, 0.19 * place.wide)], texture, legs, self.light
            )

    def trunk(self) -> None:
        who, pose = self.who, self.pose
        cut, girth, shoulders = who.top_cut, who.body.girth, pose.shoulder_half
        hip = pose.hip
        hem = {"coat": 0.64 + 0.1 * cut.length, "dress": 0.64 + 0.13 * cut.length}.get(
            cut.kind, hip + 0.01 + 0.045 * cut.length
        )
        chest = self.half(shoulders * 1.04, 0.08 * girth)
        waist = max(self.half(0.094 * girth, 0.078 * girth), chest * 0.78)
        hips = self.half(0.102 * (0.5 + 0.5 * girth), 0.086 * girth)
        flare = FLARE.get(cut.kind, 1.02)
        knots = [
            SHOULDER - 0.04,
            SHOULDER - 0.022,
            SHOULDER - 0.002,
            SHOULDER + 0.035,
            SHOULDER + 0.1,
            0.5 * (SHOULDER + hip) + 0.07,
            hip - 0.02,
            hem,
        ]
        halves = [
            chest * 0.32,
            chest * 0.58,
            chest * 0.84,
            chest,
            chest * 1.02,
            waist,
            max(hips * (0.5 + 0.5 * flare), waist * 0.98),
            hips * flare,
        ]
        upper, lower = self.at(0, SHOULDER, 0)[0], self.at(0, hip, 0)[0]
        centres = [upper + (lower - upper) * min(1.0, (y - SHOULDER) / (hip - SHOULDER)) for y in knots]
        self.canvas.profile(
            [self.row(y) for y in knots], centres, halves, top_texture(who, pose.view), self.part(TORSO), self.light
        )

    def arm(self, limb: Limb, factor: float, *, bag: bool = True) -> None:
        who, wide = self.who, self.place.wide
        radius = wide * 0.034 * (0.5 + 0.5 * who.body.girth)
        shoulder, elbow, hand = (self.at(*joint) for joint in limb.joints)
        torso, light = self.part(TORSO), self.light
        skin = colour(who.body.skin_rgb, factor)
        upper = sleeve_texture(who, 0.08, 0.5, factor)
        if who.top_cut.kind in _LONG_SLEEVES:
            padded = radius * (1.12 if who.top_cut.kind in ("coat", "hoodie") else 1.0)
            self.canvas.capsule(shoulder, elbow, padded * 1.04, padded, upper, torso, light)
            self.canvas.capsule(
                elbow, hand, padded, padded * 0.78, sleeve_texture(who, 0.5, 0.95, factor), torso, light
            )
        else:
            cuff = (shoulder[0] + 0.7 * (elbow[0] - shoulder[0]), shoulder[1] + 0.7 * (elbow[1] - shoulder[1]))
            self.canvas.capsule(shoulder, elbow, radius * 0.9, radius * 0.8, skin, torso, light)
            self.canvas.capsule(elbow, hand, radius * 0.8, radius * 0.6, skin, torso, light)
            if who.top_cut.kind != "dress" or who.top_cut.opening > 0.3:
                self.canvas.capsule(shoulder, cuff, radius * 1.06, radius * 1.06, upper, torso, light)
        palm = self.at(limb.joints[2][0], limb.joints[2][1] + 0.018, limb.joints[2][2])
        self.canvas.ellipse(palm, wide * 0.021, self.place.height * 0.026, skin, torso, light)
        bags = who.bags
        if bag and bags.handbag != "none" and limb.side == bags.hand_side:
            middle = (palm[0], palm[1] + self.place.height * 0.07)
            self.canvas.box(
                middle,
                max(2.0, self.half(0.03, 0.062)),
                self.place.height * 0.055,
                2,
                colour(bags.handbag_rgb, factor),
                torso,
                light,
            )

    def backpack(self) -> None:
        height, half = self.place.height, self.half(0.086, 0.055)
        rgb, torso = colour(self.who.bags.backpack_rgb), self.part(TORSO)
        x, y = self.at(0, 0.315, -0.115)
        self.canvas.box((x, y), half, height * 0.13, height * 0.04, rgb, torso, self.light)
        if self.facing < 0.2:
            self.canvas.box(
                (x, y + height * 0.05), half * 0.72, height * 0.05, height * 0.015, rgb * 0.72, torso, self.light
            )

    def shoulder_bag(self) -> None:
        who, height, pose = self.who, self.place.height, self.pose
        side, torso, rgb = who.bags.shoulder_side, self.part(TORSO), colour(who.bags.shoulder_bag_rgb)
        front = 0.07 if self.facing > 0 else -0.07
        low = pose.hip + 0.01
        self.canvas.capsule(
            self.at(-side * pose.shoulder_half * 0.55, SHOULDER - 0.005, front),
            self.at(side * 0.1 * who.body.girth, low, 0),
            height * 0.011,
            height * 0.011,
            rgb * 0.8,
            torso,
        )
        if -side * self.sideways > -0.75:
            x, y = self.at(side * 0.12 * who.body.girth, low + 0.035, 0)
            self.canvas.box((x, y), self.half(0.036, 0.07), height * 0.056, 2, rgb, torso, self.light)

    def head(self) -> None:
        who, place, light, sideways, facing = self.who, self.place, self.light, self.sideways, self.facing
        head, part, wide, height = who.head, self.part(HEAD), place.wide, place.height
        hair, skin = colour(head.hair_rgb), colour(who.body.skin_rgb)
        middle = self.at(0, 0.078, 0.016)
        rx, ry = self.half(0.047, 0.054), height * 0.07
        neck = self.at(0, 0.15, 0)
        framed, end = head.hair in ("long", "bob"), 0.225 if head.hair == "long" else 0.155
        behind = middle[0] - sideways * wide * 0.014
        mane = [self.row(0.03), self.row(0.08), self.row(end)], [behind] * 3, [rx * 0.9, rx * 1.24, rx * 1.16]
        self.canvas.capsule(
            (neck[0], self.row(0.125)), (neck[0], self.row(0.165)), wide * 0.026, wide * 0.03, skin * 0.85, part, light
        )
        if who.top_cut.kind == "hoodie":
            self.canvas.ellipse(
                (neck[0] - sideways * wide * 0.02, self.row(0.165)),
                wide * 0.058,
                height * 0.03,
                colour(who.top_colour.rgb, 0.85),
                self.part(TORSO),
                light,
            )
        if framed and facing > -0.2:
            self.canvas.profile(*mane, hair * 0.9, part, light)
        self.canvas.ellipse(middle, rx, ry, head_texture(who, self.head_view), part, light)
        if framed and facing <= -0.2:
            self.canvas.profile(*mane, hair, part, light)
        if head.hair == "bun":
            self.canvas.ellipse(self.at(0, 0.03, -0.05), wide * 0.026, height * 0.028, hair, part, light)
        elif head.hair == "ponytail" and facing < 0.5:
            self.canvas.capsule(
                self.at(0, 0.055, -0.055), self.at(0, 0.18, -0.08), wide * 0.02, wide * 0.011, hair, part, light
            )
        if head.hat != "none":
            rgb = colour(head.hat_rgb)
            self.canvas.ellipse(
                (middle[0], middle[1] - height * 0.012),
                rx * 1.1,
                ry * 0.98,
                rgb,
                part,
                light,
                below=middle[1] - height * 0.016,
            )
            if head.hat == "cap" and facing > -0.5:
                self.canvas.capsule(
                    self.at(0, 0.06, 0.03),
                    self.at(0, 0.064, 0.092),
                    height * 0.02,
                    height * 0.012,
                    rgb * 0.8,
                    part,
                    light,
                )
