"""How a body sits, bends or rides a bicycle: joints in the body frame of `pose`, and the trunk's lean.

The frame is that of a walking person: soles (or tyres) at Y = 1, one body height to the crown of somebody who stands.
Trunk and head are carried over from the standing body: they turn about the hips by `lean`, forwards.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .canvas import Point
from .identity import Identity
from .pose import ANKLE, FOREARM, HIP, KNEE, SHOULDER, UPPER_ARM, Joint, Limb, Placement, Pose

KINDS = ("sit", "bend", "cycle")
WHEEL = 0.185
PEDALS_Y, CRANK = 1 - 0.155, 0.09
SADDLE_Y, SADDLE_Z = PEDALS_Y - 0.36, -0.12
BARS_Y, BARS_Z = SADDLE_Y - 0.055, 0.2
"""of a bicycle, whose pedals turn about Z = 0: radius of the wheels, pedals, hips on the saddle, handlebars"""
PITCH = 0.16
"""the camera looks down: a point that is nearer by one body height lies lower by so many"""
_SIDES = (-1, 1)

Chain = tuple[Joint, Joint, Joint]
"""the joints of an arm or a leg"""


@dataclass(frozen=True)
class Posture(Pose):
    """A pose whose trunk leans forwards by `lean` radians about the hips, which are at height hip_y and depth hip_z."""

    kind: str
    lean: float
    hip_y: float
    hip_z: float

    def trunk(self, x: float, y: float, z: float) -> Joint:
        """Where a point of the standing body (Y above the hips) is when the trunk leans."""
        return _leant(self.lean, self.hip - y, z, x, self.hip_y, self.hip_z)

    def nearer(self, joint: Joint) -> float:
        """How much nearer to the camera than the body's axis a joint is, in body heights."""
        return joint[2] * math.cos(self.view) - joint[0] * math.sin(self.view)

    def down(self, joint: Joint) -> float:
        """How far below the upper end of the body frame a joint is in the picture, in body heights."""
        return joint[1] + PITCH * self.nearer(joint)

    def bounds(self) -> tuple[float, float, float, float]:
        """Left, right, top and bottom of the body in the picture, about, in body heights; no bicycle and no seat."""
        crown = self.trunk(0, 0.078, 0.016)
        sides = [self.trunk(side * self.shoulder_half, SHOULDER + 0.02, 0) for side in (-1, 1)]
        joints = [crown, *sides, *(joint for limb in (*self.legs, *self.arms) for joint in limb.joints)]
        across, down = [self.across(joint) for joint in joints], [self.down(joint) for joint in joints]
        soles = max(self.down(limb.joints[2]) for limb in self.legs)
        return min(across) - 0.05, max(across) + 0.05, min(down) - 0.07, max(*down, soles + 0.05)


def _leant(lean: float, up: float, z: float, x: float, hip_y: float, hip_z: float) -> Joint:
    sine, cosine = math.sin(lean), math.cos(lean)
    return x, hip_y - (up * cosine - z * sine), hip_z + up * sine + z * cosine


def take_posture(kind: str, identity: Identity, *, view: float, phase: float) -> Posture:
    """Somebody who sits, bends or rides.

    Args:
        kind: of KINDS; ValueError for another one.
        identity: who; the limbs have their lengths.
        view: the angle the person turned, radians; 0 faces the camera.
        phase: of the pedals, radians; sitting and bending people move a little with it.
    """
    if kind not in KINDS:
        raise ValueError(f"drawn pedestrians: expected a posture of {', '.join(KINDS)}, got {kind!r}")
    body = _Lengths(identity)
    stance = {"sit": _sitting, "bend": _bending, "cycle": _riding}[kind](body, phase)
    arms = []
    for side, hand in zip(_SIDES, stance.hands(body), strict=True):
        shoulder = stance.shoulder(body, side)
        pole = (side * stance.elbows[0], stance.elbows[1], stance.elbows[2])
        arms.append((shoulder, _between(shoulder, hand, UPPER_ARM, FOREARM, pole), hand))
    return Posture(
        view,
        0.0,
        _far_to_near(stance.legs, view),
        _far_to_near(arms, view),
        body.hip,
        body.shoulder_half,
        kind,
        stance.lean,
        stance.hip_y,
        stance.hip_z,
    )


class _Lengths:
    """Lengths of a person, in body heights; `hip` is the height of the hips when standing."""

    def __init__(self, identity: Identity) -> None:
        body = identity.body
        self.hip, knee = HIP + body.legs, KNEE + 0.6 * body.legs
        self.thigh, self.shin = knee - self.hip, ANKLE - knee
        self.hips_x = 0.05 * (0.55 + 0.45 * body.girth)
        self.shoulder_half = 0.108 * body.shoulders * (0.72 + 0.28 * body.girth)
        self.stoop = body.stoop


@dataclass(frozen=True)
class _Stance:
    """Where trunk, legs and hands are; `elbows` is the direction in which they point, X outwards.

    hands_from: "hips" or "shoulders", from which `reach` leads to the hands: one (X, Y, Z) a side.
    """

    lean: float
    hip_y: float
    hip_z: float
    legs: list[Chain]
    hands_from: str
    reach: tuple[Joint, Joint]
    elbows: Joint

    def shoulder(self, body: _Lengths, side: int) -> Joint:
        x = side * body.shoulder_half * 0.96
        return _leant(self.lean, body.hip - SHOULDER - 0.044, 0, x, self.hip_y, self.hip_z)

    def hands(self, body: _Lengths) -> list[Joint]:
        hands = []
        for side, (x, y, z) in zip(_SIDES, self.reach, strict=True):
            start = (0.0, self.hip_y, self.hip_z) if self.hands_from == "hips" else self.shoulder(body, side)
            hands.append((x, min(start[1] + y, 0.93), start[2] + z))
        return hands


def _sitting(body: _Lengths, phase: float) -> _Stance:
    """Thighs forwards, shins down, hands in the lap."""
    sway, other = math.sin(phase), math.cos(0.7 * phase + 1)
    hip_y = ANKLE - body.shin * 0.97 - 0.015
    legs = []
    for side in _SIDES:
        tilt = 0.22 * sway * side - 0.06
        knee = (side * body.hips_x * 1.35, hip_y + 0.02, body.thigh * 0.98)
        ankle = (side * body.hips_x * 1.3, knee[1] + body.shin * math.cos(tilt), knee[2] + body.shin * math.sin(tilt))
        legs.append(((side * body.hips_x, hip_y, 0.0), knee, ankle))
    left, right = ((side * (0.05 + 0.03 * other), -0.045, 0.13 + 0.03 * sway) for side in _SIDES)
    return _Stance(0.04 + 0.16 * max(other, -0.6), hip_y, 0.0, legs, "hips", (left, right), (0.8, 0.2, -1.0))


def _bending(body: _Lengths, phase: float) -> _Stance:
    """Hips back over bent knees, the trunk nearly level, hands towards the ground."""
    sway, depth = math.sin(phase), 0.5 + 0.5 * math.cos(0.7 * phase + 1)
    shin_lean, thigh_lean = 0.2 + 0.3 * depth, 0.3 + 0.55 * depth
    knee_y, knee_z = ANKLE - body.shin * math.cos(shin_lean), body.shin * math.sin(shin_lean)
    hip_y, hip_z = knee_y - body.thigh * math.cos(thigh_lean), knee_z - body.thigh * math.sin(thigh_lean)
    legs = []
    for side in _SIDES:
        x, step = side * body.hips_x, 0.05 * side
        legs.append(((x, hip_y, hip_z), (x, knee_y, knee_z + 0.5 * step), (x, ANKLE, step)))
    left, right = ((side * 0.07, 0.29, 0.02 + 0.05 * side * sway) for side in _SIDES)
    return _Stance(1.12 + 0.24 * sway, hip_y, hip_z, legs, "shoulders", (left, right), (0.5, 0.0, -0.6))


def _riding(body: _Lengths, phase: float) -> _Stance:
    """On the saddle, feet on the pedals, hands on the handlebars."""
    legs = []
    for side in _SIDES:
        turn = phase + (math.pi if side < 0 else 0)
        ankle = (side * 0.055, PEDALS_Y - 0.04 + CRANK * math.sin(turn), CRANK * math.cos(turn) - 0.02)
        hip = (side * body.hips_x, SADDLE_Y, SADDLE_Z)
        legs.append((hip, _between(hip, ankle, body.thigh, body.shin, (0, -0.3, 1)), ankle))
    lean = 0.38 + 0.1 * math.cos(0.7 * phase + 1) + 2 * body.stoop
    left, right = ((side * 0.115, BARS_Y - 0.012 - SADDLE_Y, BARS_Z - SADDLE_Z) for side in _SIDES)
    return _Stance(lean, SADDLE_Y, SADDLE_Z, legs, "hips", (left, right), (0.5, 1.0, -0.2))


def _far_to_near(limbs: list[Chain], view: float) -> tuple[Limb, Limb]:
    def depth(joints: Chain) -> float:
        x, z = joints[1][0], 0.5 * (joints[1][2] + joints[2][2])
        return z * math.cos(view) - x * math.sin(view)

    first, last = sorted(
        (Limb(side, joints, depth(joints)) for side, joints in zip(_SIDES, limbs, strict=True)),
        key=lambda limb: limb.depth,
    )
    return first, last


def _between(start: Joint, end: Joint, first: float, second: float, pole: Joint) -> Joint:
    """The elbow or knee between two ends: bones of the lengths `first` and `second`, bent towards `pole`."""
    line = tuple(b - a for a, b in zip(start, end, strict=True))
    distance = math.sqrt(sum(value * value for value in line)) + 1e-9
    reach = min(max(distance, abs(first - second) + 1e-6), first + second)
    along = (reach * reach + first * first - second * second) / (2 * reach)
    off = math.sqrt(max(first * first - along * along, 0.0))
    axis = tuple(value / distance for value in line)
    slant = sum(a * p for a, p in zip(axis, pole, strict=True))
    side = tuple(p - slant * a for a, p in zip(axis, pole, strict=True))
    length = math.sqrt(sum(value * value for value in side)) + 1e-9
    share = along * distance / reach  # an arm that is too short is stretched
    x, y, z = (s + share * a + off * p / length for s, a, p in zip(start, axis, side, strict=True))
    return x, y, z


def fit_posture(
    posture: Posture, *, top: float, height: float, centre: float, width: float, cut: str = "none"
) -> Placement:
    """Place somebody so that the body fills a box as a detector would cut it.

    People are squeezed or stretched within limits, and may stick out at the sides.

    Args:
        posture: sitting, bending or riding.
        top, height: of the box around the body, pixels.
        centre, width: likewise.
        cut: "none" or "head": feet at the lower edge, as large as the box where the head lies outside of the picture;
            "legs": the crown at the upper edge.
    """
    left, right, upper, lower = posture.bounds()
    fill = height / (lower - upper)
    tall = fill if cut == "head" else min(fill, 1.3 * height)
    wide = min(max(width / (right - left), 0.92 * tall), 1.5 * tall)
    crown = top - tall * upper if cut == "legs" else top + height - tall * lower
    return Placement(x=centre - wide * 0.5 * (left + right), top=crown, height=tall, wide=wide)


def project(place: Placement, posture: Posture, joint: Joint) -> Point:
    """The pixel of a joint."""
    return place.x + place.wide * posture.across(joint), place.top + place.height * posture.down(joint)
