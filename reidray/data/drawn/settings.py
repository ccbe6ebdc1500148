"""What a drawn data set is made of: its settings, and the streams of random numbers that everything is drawn from."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import Any

import numpy as np

SPLITS = ("train", "validation", "test")
LATER = ("postures", "cut_off", "half_hidden", "small_twins")
"""knobs that came later: off where they are not given, and then no part of what a data set is known by"""


@dataclass(frozen=True)
class DrawnSettings:
    """Everything that decides the bytes of a drawn data set. Each difficulty has its own knob, and 0 switches it off.

    Defaults live in `reidray.config`; every field is given here, but those that came later, which are off.
    """

    seed: int
    train_persons: int
    validation_persons: int
    test_persons: int
    num_cameras: int
    cameras_per_person: tuple[int, int]
    """fewest and most cameras that see a person"""
    images_per_camera: tuple[int, int]
    """fewest and most pictures a camera takes of a person"""
    twins: float
    """share of persons, 0..1, that are a near-copy of another person of their split"""
    twin_changes: int
    """how many groups of traits (of `identity.GROUPS`) a near-copy may differ in"""
    camera_strength: float
    """shift of colour, brightness, gamma, saturation and contrast between cameras and pictures; 1 is very strong"""
    camera_blur: float
    """loss of resolution and defocus; 0 none, 1 moderate"""
    camera_noise: float
    """sensor noise and JPEG compression; 0 none (quality 95), 1 moderate (quality 45 to 88)"""
    view_spread: float
    """how freely a person turns about the camera's usual view; 0 not at all, 1 by some 40 degrees, 3 any view"""
    occlusion: float
    """how often something stands in front; 1 in about 30 % of the pictures"""
    misalignment: float
    """jitter and truncation of the box around the person; 0 a perfect box"""
    pedestrians_behind: float
    """chance, 0..1, of another pedestrian behind the person"""
    fresh_scenes: int
    """0: each camera has one fixed scene; n > 0: every picture has a random piece of one of n scenes"""
    frames: int
    """0: pictures; n > 0: tracklets of n / 2 to n frames in their place"""
    camera_seed: int
    """cameras, and their scenes, of two data sets are the same when this is the same"""
    postures: float = 0.0
    """share of a person's visits to a camera, 0..1, on which they sit, bend or ride a bicycle instead of walking"""
    cut_off: float = 0.0
    """chance, 0..1, that the legs or the head lie outside of the box"""
    half_hidden: float = 0.0
    """chance, 0..1, that something in front hides a third to a half of what is in the box of a person"""
    small_twins: float = 0.0
    """share of persons, 0..1, that differ from another one in one small thing: hair or hat, pattern, shoes, or bags"""

    def __post_init__(self) -> None:
        object.__setattr__(self, "cameras_per_person", tuple(self.cameras_per_person))
        object.__setattr__(self, "images_per_camera", tuple(self.images_per_camera))
        for name in ("seed", "train_persons", "validation_persons", "test_persons", "twin_changes", "fresh_scenes"):
            _expect(getattr(self, name) >= 0, name, "0 or more", getattr(self, name))
        _expect(0 <= self.frames <= 99, "frames", "0 to 99", self.frames)
        _expect(self.camera_seed >= 0, "camera_seed", "0 or more", self.camera_seed)
        _expect(1 <= self.num_cameras <= 99, "num_cameras", "1 to 99", self.num_cameras)
        fewest, most = self.cameras_per_person
        _expect(1 <= fewest <= most, "cameras_per_person", "(fewest, most) with 1 <= fewest <= most", (fewest, most))
        _expect(
            most <= self.num_cameras, "cameras_per_person", f"at most num_cameras={self.num_cameras}", (fewest, most)
        )
        fewest, most = self.images_per_camera
        _expect(1 <= fewest <= most <= 99, "images_per_camera", "1 <= fewest <= most <= 99", (fewest, most))
        for name in ("twins", "pedestrians_behind", "occlusion", "misalignment", *LATER):
            _expect(0 <= getattr(self, name) <= 1, name, "0 to 1", getattr(self, name))
        for name in ("camera_strength", "camera_blur", "camera_noise", "view_spread"):
            _expect(0 <= getattr(self, name) <= 4, name, "0 to 4", getattr(self, name))

    def written(self) -> dict[str, Any]:
        """As JSON values, by which a data set is known again; knobs that came later only where they are on."""
        found: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return {name: value for name, value in found.items() if value or name not in ("frames", *LATER)}

    def persons(self, split: str) -> int:
        """The number of persons of a split ("train", "validation" or "test")."""
        return {"train": self.train_persons, "validation": self.validation_persons, "test": self.test_persons}[split]


def _expect(holds: bool, name: str, expected: str, got: object) -> None:
    if not holds:
        raise ValueError(f"drawn pedestrians: expected {name} to be {expected}, got {got!r}")


class Purpose(IntEnum):
    """What a stream of random numbers is for. A knob changes its own purpose and leaves the other streams alone."""

    IDENTITY = 1
    TWIN = 2
    VISITS = 3
    TRACK = 4
    POSE = 5
    BOX = 6
    SCENE = 7
    FRONT = 8
    BEHIND = 9
    PHOTO = 10
    CAMERA = 11
    PANORAMA = 12
    FRESH = 13
    STRANGER = 14
    FOLDS = 15
    POSTURE = 16
    CUT = 17
    HIDING = 18
    SMALL_TWIN = 19


def stream(seed: int, purpose: Purpose, *key: int) -> np.random.Generator:
    """Random numbers that depend on the seed, the purpose and the key alone: never on a process or an order."""
    return np.random.default_rng([seed, int(purpose), *key])
