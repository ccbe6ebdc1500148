"""How a body sits, bends or rides a bicycle: joints in the body frame of `pose`, and the trunk's lean.

The frame is that of a walking person: soles (or tyres) at Y = 1, one body height to the crown of somebody who stands.
Trunk and head are carried over from the standing body: they turn about the hips by `lean`, forwards.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .identity import Identity
from .pose import ANKLE, FOREARM, HIP, KNEE, SHOULDER, UPPER_ARM, Joint, Limb, Placement, Pose, Point

KINDS = ("sit", "bend", "cycle")
WHEEL = 0.185
PEDALS_Y, CRANK = 1 - 0.155, 0.09
PITCH = 0.16
"""the camera looks down: a point that is nearer by one body height lies lower by so many"""


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
        identity: who; lengths of the limbs are theirs.
        view: the angle the person turned, radians; 0 faces the camera.
        phase: of the pedals, radians; sitting and bending people move a little with it.
    """
    if kind not in KINDS:
        raise ValueError(f"drawn pedestrians: expected a posture of {', '.join(KINDS)}, got {kind!r}")
    body = identity.body
    hip, knee = HIP + body.legs, KNEE + 0.6 * body.legs
    thigh, shin = knee - hip, ANKLE - knee
    sway, other = math.sin(phase), math.cos(0.7 * phase + 1)
    hips_x = 0.05 * (0.55 + 0.45 * body.girth)
    legs: list[tuple[Joint, Joint, Joint]] = []
    if kind == "sit":
        lean, hip_z = 0.04 + 0.16 * max(other, -0.6), 0.0
        hip_y = ANKLE - shin * 0.97 - 0.015
        for side in (-1, 1):
            tilt = 0.22 * sway * side - 0.06
            knee_at = (side * hips_x * 1.35, hip_y + 0.02, hip_z + thigh * 0.98)
            ankle = (side * hips_x * 1.3, knee_at[1] + shin * math.cos(tilt), knee_at[2] + shin * math.sin(tilt))
            legs.append(((side * hips_x, hip_y, hip_z), knee_at, ankle))
    elif kind == "bend":
        lean, depth = 1.12 + 0.24 * sway, 0.5 + 0.5 * other
        shin_lean, thigh_lean = 0.2 + 0.3 * depth, 0.3 + 0.55 * depth
        knee_y, knee_z = ANKLE - shin * math.cos(shin_lean), shin * math.sin(shin_lean)
        hip_y, hip_z = knee_y - thigh * math.cos(thigh_lean), knee_z - thigh * math.sin(thigh_lean)
        for side in (-1, 1):
            step = 0.05 * side
            legs.append(
                (
                    (side * hips_x, hip_y, hip_z),
                    (side * hips_x, knee_y, knee_z + 0.5 * step),
                    (side * hips_x, ANKLE, step),
                )
            )
    else:
        lean, hip_y, hip_z = 0.38 + 0.1 * other + 2 * body.stoop, PEDALS_Y - 0.36, -0.12
        for side in (-1, 1):
            turn = phase + (math.pi if side < 0 else 0)
            ankle = (side * 0.055, PEDALS_Y - 0.04 + CRANK * math.sin(turn), CRANK * math.cos(turn) - 0.02)
            start = (side * hips_x, hip_y, hip_z)
            legs.append((start, _between(start, ankle, thigh, shin, (0, -0.3, 1)), ankle))

    shoulder_half = 0.108 * body.shoulders * (0.72 + 0.28 * body.girth)
    arms: list[tuple[Joint, Joint, Joint]] = []
    for side in (-1, 1):
        x = side * shoulder_half
        shoulder = _leant(lean, hip - SHOULDER - 0.044, 0, x * 0.96, hip_y, hip_z)
        if kind == "sit":
            hand = (side * (0.05 + 0.03 * other), hip_y - 0.045, hip_z + 0.13 + 0.03 * sway)
            pole = (side * 0.8, 0.2, -1.0)
        elif kind == "bend":
            hand = (side * 0.07, min(shoulder[1] + 0.29, 0.93), shoulder[2] + 0.02 + 0.05 * side * sway)
            pole = (side * 0.5, 0.0, -0.6)
        else:
            hand = (side * 0.115, HANDLES[0] - 0.012, HANDLES[1])
            pole = (side * 0.5, 1.0, -0.2)
        arms.append((shoulder, _between(shoulder, hand, UPPER_ARM, FOREARM, pole), hand))

    def near(joints: tuple[Joint, Joint, Joint]) -> float:
        x, z = joints[1][0], 0.5 * (joints[1][2] + joints[2][2])
        return z * math.cos(view) - x * math.sin(view)

    first_leg, last_leg = sorted((Limb(s, j, near(j)) for s, j in zip((-1, 1), legs, strict=True)), key=_depth)
    first_arm, last_arm = sorted((Limb(s, j, near(j)) for s, j in zip((-1, 1), arms, strict=True)), key=_depth)
    return Posture(
        view, 0.0, (first_leg, last_leg), (first_arm, last_arm), hip, shoulder_half, kind, lean, hip_y, hip_z
    )


HANDLES = (PEDALS_Y - 0.36 - 0.055, 0.2)
"""height and depth of a bicycle's handlebars"""


def _depth(limb: Limb) -> float:
    return limb.depth


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


def fit_posture(posture: Posture, *, top: float, height: float, centre: float, width: float) -> Placement:
    """Place somebody so that the body fills a box as a detector would cut it, feet at its lower edge.

    Args:
        posture: sitting, bending or riding.
        top, height: of the box around the body, pixels.
        centre, width: likewise; people are squeezed or stretched within limits, and may stick out at the sides.
    """
    left, right, upper, lower = posture.bounds()
    tall = min(height / (lower - upper), 1.3 * height)
    wide = min(max(width / (right - left), 0.92 * tall), 1.5 * tall)
    return Placement(
        x=centre - wide * 0.5 * (left + right), top=top + height - tall * lower, height=tall, wide=wide
    )


def project(place: Placement, posture: Posture, joint: Joint) -> Point:
    """The pixel of a joint."""
    return place.x + place.wide * posture.across(joint), place.top + place.height * posture.down(joint)
