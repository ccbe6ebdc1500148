"""The picture that a camera takes of a person: view, scene, box, passers-by and obstacles, then the camera itself."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image

from .camera import Camera, develop, encode, make_camera
from .canvas import HEIGHT, WIDTH, Canvas
from .figure import draw_figure, fit
from .hiding import Passer, hide
from .identity import Identity, draw_identity
from .population import population
from .pose import Placement
from .posed_figure import draw_posed
from .posture import KINDS, Posture, fit_posture, take_posture
from .scene import cut_background, draw_obstacle, draw_panorama, folds
from .settings import SPLITS, DrawnSettings, Purpose, stream

_STRANGERS = 40
_STRAYS = len(SPLITS)
_BEHIND, _FRONT = 0, 1


@dataclass(frozen=True)
class Picture:
    """One drawn picture. `image` is what was encoded: the JPEG of a real camera loses a little of it."""

    name: str
    image: np.ndarray
    mask: np.ndarray
    jpeg: bytes
    view: float
    occluded: bool

    def mask_png(self) -> bytes:
        """The map of parts as a grayscale PNG, values 0 to 4."""
        buffer = io.BytesIO()
        Image.fromarray(self.mask).save(buffer, "PNG", compress_level=4)
        return buffer.getvalue()


@lru_cache(maxsize=256)
def _camera(settings: DrawnSettings, number: int) -> Camera:
    return make_camera(settings, number)


@lru_cache(maxsize=2048)
def _panorama(camera_seed: int, purpose: Purpose, number: int, width: int) -> np.ndarray:
    return draw_panorama(stream(camera_seed, purpose, number), height=176, width=width)


@lru_cache(maxsize=_STRANGERS)
def _stranger(seed: int, number: int) -> Identity:
    return draw_identity(stream(seed, Purpose.STRANGER, number))


def draw_picture(settings: DrawnSettings, split: str, person: int, camera: int, picture: int) -> Picture:
    """Picture number `picture` that `camera` takes of `person`: the same arguments always give the same bytes.

    Args:
        settings: of the whole data set.
        split: "train", "validation" or "test".
        person: 0 to the split's number of persons - 1.
        camera: 0 to num_cameras - 1.
        picture: 0 or more; consecutive pictures are moments of one walk.
    """
    people = population(settings, split)
    shot = _Shot(settings, (SPLITS.index(split), person, camera, picture), misalignment=settings.misalignment)
    name = f"{people.first + person:04d}_c{camera + 1}s1_{shot.frame:06d}_{picture % 100:02d}.jpg"
    return shot.take(people.identities[person], name)


def draw_stray(settings: DrawnSettings, kind: str, number: int) -> Picture:
    """A detection that is no query: a "distractor" (person 0, mostly background) or "junk" (person -1, badly cut)."""
    camera = int(stream(settings.seed, Purpose.STRANGER, _STRAYS, number).integers(settings.num_cameras))
    shot = _Shot(settings, (_STRAYS + (kind == "junk"), number, camera, 0), misalignment=3.0 if kind == "junk" else 6.0)
    name = f"{'-1' if kind == 'junk' else '0000'}_c{camera + 1}s1_{100000 + number:06d}_00.jpg"
    return shot.take(_stranger(settings.seed, number % _STRANGERS), name)


class _Shot:
    """The circumstances of one picture: all that does not come from the person."""

    def __init__(self, settings: DrawnSettings, key: tuple[int, int, int, int], *, misalignment: float) -> None:
        self.settings, self.key, self.misalignment = settings, key, misalignment
        self.camera_number = key[2]
        self.camera = _camera(settings, key[2])
        track = stream(settings.seed, Purpose.TRACK, *key[:3])
        pose = stream(settings.seed, Purpose.POSE, *key)
        turn, phase, step = float(track.standard_normal()), track.uniform(0, 2 * math.pi), track.uniform(0.6, 1.6)
        spread = settings.view_spread
        self.view = self.camera.view + spread * (self.camera.view_spread * turn + 0.22 * float(pose.standard_normal()))
        self.phase = phase + step * key[3] + pose.uniform(-0.4, 0.4)
        self.place_across = track.random()
        self.frame = int(track.integers(100, 90000)) + 25 * key[3]
        self.light = self.camera.light * pose.uniform(0.6, 1.2)
        posture = stream(settings.seed, Purpose.POSTURE, *key[:3])
        self.posed = posture.random() < settings.postures
        self.kind = KINDS[int(posture.integers(len(KINDS)))]
        self.prop_rgb = (posture.uniform(40, 170) + posture.normal(0, 24, 3)).clip(15, 235).astype(np.float32)

    def stream(self, purpose: Purpose) -> np.random.Generator:
        return stream(self.settings.seed, purpose, *self.key)

    def take(self, identity: Identity, name: str) -> Picture:
        settings = self.settings
        canvas = Canvas(self.background(), folds(self.stream(Purpose.FOLDS)))
        posture = take_posture(self.kind, identity, view=self.view, phase=self.phase) if self.posed else None
        place = self.place(identity, posture)
        behind = self.stream(Purpose.BEHIND)
        if behind.random() < settings.pedestrians_behind:
            self.passer_by(canvas, behind, place, _BEHIND)
        canvas.darken((place.x, place.top + place.height * 0.985), WIDTH * 0.42, HEIGHT * 0.035, 0.6)
        if posture is None:
            draw_figure(canvas, identity, place, view=self.view, phase=self.phase, light=self.light)
        else:
            draw_posed(canvas, identity, place, posture, light=self.light, prop_rgb=self.prop_rgb)
        front = self.stream(Purpose.FRONT)
        occluded = front.random() < settings.occlusion * self.camera.clutter
        if occluded and front.random() < 0.35:
            self.passer_by(canvas, front, place, _FRONT)
        elif occluded:
            draw_obstacle(canvas, front)
        hiding = self.stream(Purpose.HIDING)
        if hiding.random() < settings.half_hidden:
            occluded = True
            hide(canvas, hiding, self.close_passer(hiding))
        image = develop(canvas.image_HW3, self.camera, settings, self.stream(Purpose.PHOTO))
        jpeg = encode(image, self.camera, settings)
        return Picture(name, image, canvas.parts_HW, jpeg, self.view % (2 * math.pi), bool(occluded))

    def background(self) -> np.ndarray:
        settings, rng = self.settings, self.stream(Purpose.SCENE)
        zoom, down, shift, flip = rng.uniform(1.0, 1.35), rng.random(), rng.random(), rng.random() < 0.5
        if settings.fresh_scenes:
            panorama = _panorama(settings.camera_seed, Purpose.FRESH, int(rng.integers(settings.fresh_scenes)), 224)
            return cut_background(panorama, zoom=zoom, across=shift, down=down, flip=flip)
        panorama = _panorama(settings.camera_seed, Purpose.PANORAMA, self.camera_number, 480)
        across = min(max(self.place_across + 0.04 * (shift - 0.5), 0.0), 1.0)
        return cut_background(panorama, zoom=zoom, across=across, down=down, flip=False)

    def place(self, identity: Identity, posture: Posture | None) -> Placement:
        """The detector's box: a perfect one shows the whole person, misaligned ones cut or lose them."""
        rng, m = self.stream(Purpose.BOX), self.misalignment
        size, up, side, stretch = (float(value) for value in rng.standard_normal(4))
        cut, cut_by, small, small_by, lift = rng.random(5)
        height = HEIGHT * 0.945 * math.exp(min(0.075 * m * size, 0.5)) * (0.5 + 0.5 * identity.body.height)
        top = HEIGHT * (0.5 + 0.045 * m * up) - 0.5 * height
        if cut < 0.14 * min(m, 3):
            height *= 1.12 + 0.28 * cut_by
        elif small < 0.08 * min(m, 3):
            shrink = 0.68 + 0.17 * small_by
            top += height * (1 - shrink) * (0.2 + 0.6 * lift)
            height *= shrink
        width = WIDTH * 0.9 * math.exp(0.1 * min(m, 2) * stretch) * min(height / (0.945 * HEIGHT), 1.2)
        centre = WIDTH * (0.5 + 0.09 * m * side)
        cutting = self.stream(Purpose.CUT)
        if cutting.random() < self.settings.cut_off:
            cut, top, height = _cut_off(cutting)
            width, narrowest = min(width, 0.95 * WIDTH), 0.8
        else:
            cut, narrowest = "none", 1.25
        if posture is not None:
            return fit_posture(posture, top=top, height=height, centre=centre, width=width, cut=cut)
        return fit(
            identity,
            view=self.view,
            phase=self.phase,
            top=top,
            height=height,
            centre=centre,
            width=width,
            narrowest=narrowest,
        )

    def close_passer(self, rng: np.random.Generator) -> Passer:
        """Paints another person close to the camera, as far beside the middle as the caller says."""
        identity = _stranger(self.settings.seed, int(rng.integers(_STRANGERS)))
        height, view, phase = rng.uniform(1.0, 1.2) * HEIGHT, rng.uniform(-math.pi, math.pi), rng.uniform(0, 6.28)
        top = HEIGHT * rng.uniform(0.02, 0.14)

        def paint(canvas: Canvas, off: float) -> None:
            place = Placement(x=WIDTH / 2 + off, top=top, height=height, wide=1.3 * height)
            draw_figure(canvas, identity, place, view=view, phase=phase, light=self.light, labelled=False)

        return paint

    def passer_by(self, canvas: Canvas, rng: np.random.Generator, beside: Placement, where: int) -> None:
        identity = _stranger(self.settings.seed, int(rng.integers(_STRANGERS)))
        side, off = (
            (1 if rng.random() < 0.5 else -1),
            rng.uniform(0.55, 0.8) if where == _BEHIND else rng.uniform(0.48, 0.66),
        )
        scale = rng.uniform(0.72, 0.95) if where == _BEHIND else rng.uniform(0.98, 1.15)
        height = beside.height * scale
        top = beside.top + HEIGHT * (rng.uniform(-0.02, 0.08) if where == _BEHIND else rng.uniform(0.02, 0.12))
        place = Placement(x=beside.x + side * off * WIDTH, top=top, height=height, wide=1.35 * height)
        view, phase = rng.uniform(-math.pi, math.pi), rng.uniform(0, 2 * math.pi)
        draw_figure(canvas, identity, place, view=view, phase=phase, light=self.light, labelled=False)


def _cut_off(rng: np.random.Generator) -> tuple[str, float, float]:
    """What is outside of the box ("legs" or "head"), and the top and height of the body's own box, in pixels."""
    shown, missing, down = rng.uniform(0.45, 0.68), rng.uniform(0.14, 0.34), rng.uniform(0.01, 0.06)
    if rng.random() < 0.65:
        return "legs", HEIGHT * down, HEIGHT * (1 - down) / shown
    height = HEIGHT * (1 - down) / (1 - missing)
    return "head", -missing * height, height
