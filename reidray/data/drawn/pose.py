"""How a body stands: the joints of a walking person, seen under an angle.

Body frame: X to the person's left, Y downwards from the crown (0) to the soles (1), Z forwards; in body heights.
`view` is the angle in radians by which the person turned: 0 faces the camera, pi shows the back.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .canvas import Point
from .identity import Identity

SHOULDER, HIP, KNEE, ANKLE = 0.185, 0.495, 0.72, 0.945
UPPER_ARM, FOREARM = 0.155, 0.15

Joint = tuple[float, float, float]


@dataclass(frozen=True)
class Limb:
    """Three joints of an arm (shoulder, elbow, hand) or a leg (hip, knee, ankle)."""

    side: int
    joints: tuple[Joint, Joint, Joint]
    depth: float
    """positive: nearer to the camera than the body's axis"""


@dataclass(frozen=True)
class Pose:
    """Joints of a person in the body frame, limbs from far to near, and how wide the body is under the view."""

    view: float
    stoop: float
    legs: tuple[Limb, Limb]
    arms: tuple[Limb, Limb]
    hip: float
    shoulder_half: float

    def across(self, joint: Joint) -> float:
        """How far a joint lies to the right of the body's axis in the picture, in body heights."""
        x, y, z = joint
        return x * math.cos(self.view) + (z + self.stoop * (1 - y)) * math.sin(self.view)

    def half(self, lateral: float, frontal: float) -> float:
        """Half the width in the picture of an elliptic section with half axes across and along the walk."""
        return math.hypot(lateral * math.cos(self.view), frontal * math.sin(self.view))

    def extent(self) -> tuple[float, float]:
        """Leftmost and rightmost point of the body, about, in body heights from the axis."""
        trunk = self.half(self.shoulder_half + 0.03, 0.085)
        ends = [self.across(limb.joints[k]) for limb in (*self.legs, *self.arms) for k in (1, 2)]
        return min(-trunk, min(ends) - 0.036), max(trunk, max(ends) + 0.036)


def stand(identity: Identity, *, view: float, phase: float) -> Pose:
    """The pose at `phase` (radians; a full step cycle is 2 pi) of the walk of a person, seen under `view` (radians)."""
    body = identity.body
    reach = math.sin(phase) * body.stride
    hip, knee = HIP + body.legs, KNEE + 0.6 * body.legs
    thigh, shin = knee - hip, ANKLE - knee
    hip_x = 0.05 * (0.55 + 0.45 * body.girth)
    shoulder_half = 0.108 * body.shoulders * (0.72 + 0.28 * body.girth)

    def depth(x: float, z: float) -> float:
        return z * math.cos(view) - x * math.sin(view)

    legs = []
    for side in (-1, 1):
        swing = 0.40 * reach * side
        bend = 0.10 + 0.55 * body.stride * max(0.0, -math.cos(phase) * side) ** 1.5
        knee_y, knee_z = hip + thigh * math.cos(swing), thigh * math.sin(swing)
        lower = swing - bend * (0.6 if swing < 0 else 0.9)
        ankle = (side * hip_x * 0.86, knee_y + shin * math.cos(lower), knee_z + shin * math.sin(lower))
        legs.append((side, (side * hip_x, hip, 0.0), (side * hip_x * 0.96, knee_y, knee_z), ankle))
    sink = ANKLE - max(ankle[1] for *_, ankle in legs)
    walking = [
        Limb(
            side,
            (_lowered(hip_joint, 0.4 * sink), _lowered(knee_joint, sink), _lowered(ankle, sink)),
            depth(knee_joint[0], 0.5 * (knee_joint[2] + ankle[2])),
        )
        for side, hip_joint, knee_joint, ankle in legs
    ]

    arms = []
    for side in (-1, 1):
        swing = -0.5 * reach * side * body.swing
        x = side * shoulder_half
        elbow = (x * 1.14, SHOULDER + 0.02 + UPPER_ARM * math.cos(swing), UPPER_ARM * math.sin(swing))
        bent = swing + body.elbow + 0.25 * max(0.0, swing)
        hand = (x * 1.12, elbow[1] + FOREARM * math.cos(bent), elbow[2] + FOREARM * math.sin(bent))
        arms.append(Limb(side, ((x * 0.96, SHOULDER + 0.044, 0.0), elbow, hand), depth(x, 0.5 * hand[2])))

    far_leg, near_leg = sorted(walking, key=lambda limb: limb.depth)
    far_arm, near_arm = sorted(arms, key=lambda limb: limb.depth)
    return Pose(view, body.stoop, (far_leg, near_leg), (far_arm, near_arm), hip, shoulder_half)


def _lowered(joint: Joint, by: float) -> Joint:
    return joint[0], joint[1] + by, joint[2]


@dataclass(frozen=True)
class Placement:
    """Where a figure stands, in pixels: column of its axis, row of its crown, height and width of one body height."""

    x: float
    top: float
    height: float
    wide: float

    def at(self, pose: Pose, x: float, y: float, z: float) -> Point:
        """The pixel of a point of the body."""
        return self.x + self.wide * pose.across((x, y, z)), self.top + self.height * y
