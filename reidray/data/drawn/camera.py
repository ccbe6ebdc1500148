"""A camera: where people come from, its light and colours, and what its sensor does to a picture."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from .canvas import HEIGHT, WIDTH
from .settings import DrawnSettings, Purpose, stream


@dataclass(frozen=True)
class Camera:
    """The fixed traits of a camera, at strength 1; the settings' knobs scale them."""

    view: float
    view_spread: float
    light: float
    clutter: float
    gains: tuple[float, float, float]
    brightness: float
    gamma: float
    saturation: float
    contrast: float
    haze: float
    blur: float
    resolution: float
    noise: float
    quality: int


def make_camera(settings: DrawnSettings, number: int) -> Camera:
    """Camera `number` (0-based): depends on camera_seed and the number alone."""
    rng = stream(settings.camera_seed, Purpose.CAMERA, number)
    red, green, blue = (float(gain) for gain in rng.normal(0, 0.11, 3))
    return Camera(
        view=float((2.4 * number + rng.uniform(0, 1.2)) % (2 * math.pi)),
        view_spread=float(rng.uniform(0.5, 0.95)),
        light=float(rng.uniform(-0.28, 0.28)),
        clutter=float(rng.uniform(0.15, 0.45)),
        gains=(red, green, blue),
        brightness=float(rng.normal(0, 0.16)),
        gamma=float(rng.normal(0, 0.22)),
        saturation=float(rng.normal(-0.06, 0.2)),
        contrast=float(rng.normal(0, 0.12)),
        haze=float(rng.uniform(0, 0.12)),
        blur=float(rng.uniform(0.25, 0.95)),
        resolution=float(rng.uniform(0.55, 1.0)),
        noise=float(rng.uniform(1.5, 5)),
        quality=int(rng.integers(45, 89)),
    )


def develop(image_HW3: np.ndarray, camera: Camera, settings: DrawnSettings, rng: np.random.Generator) -> np.ndarray:
    """What the camera makes of a picture: colours, then optics, then noise.

    Args:
        image_HW3: (128, 64, 3) float32, 0..255.
        camera, settings: traits, and how strongly they show.
        rng: for the differences between pictures of one camera.
    Returns: (128, 64, 3) uint8. With strength, blur and noise 0 the input, rounded.
    """
    draws = rng.standard_normal(8)
    defocus, resample, slip = (float(value) for value in rng.random(3))
    x_HW3 = np.clip(image_HW3, 0, 255)
    if settings.camera_strength > 0:
        x_HW3 = _tone(x_HW3, camera, settings.camera_strength, draws)
    if settings.camera_blur > 0:
        resolution = 1 - settings.camera_blur * (1 - camera.resolution * (0.8 + 0.3 * resample))
        sigma = settings.camera_blur * (camera.blur * (0.5 + 0.8 * defocus) + (0.7 if slip < 0.12 else 0.0))
        x_HW3 = _optics(x_HW3, max(resolution, 0.3), sigma)
    if settings.camera_noise > 0:
        grains = np.float32(settings.camera_noise * camera.noise)
        grain = rng.standard_normal((HEIGHT, WIDTH, 4), dtype=np.float32)
        x_HW3 = x_HW3 + grains * (grain[..., :1] + np.float32(0.4) * grain[..., 1:])
    return (np.clip(x_HW3, 0, 255) + np.float32(0.5)).astype(np.uint8)


def _tone(image_HW3: np.ndarray, camera: Camera, strength: float, draws: np.ndarray) -> np.ndarray:
    gains_3 = np.exp(strength * (np.array(camera.gains) + 0.045 * draws[:3] + camera.brightness + 0.16 * draws[3]))
    gamma = math.exp(strength * (camera.gamma + 0.1 * draws[4]))
    x_HW3 = np.power(np.maximum(image_HW3 * np.float32(1 / 255), np.float32(1e-4)), np.float32(gamma)) * gains_3.astype(
        np.float32
    )
    saturation = min(max(math.exp(strength * (camera.saturation + 0.12 * draws[5])), 0.3), 1.6)
    grey_HW1 = x_HW3.mean(2, keepdims=True)
    x_HW3 = grey_HW1 + (x_HW3 - grey_HW1) * np.float32(saturation)
    contrast, haze = math.exp(strength * (camera.contrast + 0.1 * draws[6])), min(strength, 1.0) * camera.haze
    x_HW3 = (x_HW3 - np.float32(0.42)) * np.float32(contrast * (1 - haze)) + np.float32(0.42 * (1 - haze) + 0.7 * haze)
    return np.clip(x_HW3 * np.float32(255), 0, 255)


def _optics(image_HW3: np.ndarray, resolution: float, sigma: float) -> np.ndarray:
    image = Image.fromarray((image_HW3 + 0.5).astype(np.uint8))
    if resolution < 0.95:
        small = (max(8, int(WIDTH * resolution)), max(16, int(HEIGHT * resolution)))
        image = image.resize(small, Image.Resampling.BILINEAR).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    if sigma > 0.3:
        image = image.filter(ImageFilter.GaussianBlur(sigma))
    return np.asarray(image, np.float32)


def encode(image_HW3: np.ndarray, camera: Camera, settings: DrawnSettings) -> bytes:
    """The picture as the camera's JPEG: quality 95 without camera_noise, the camera's own quality at 1."""
    quality = round(95 - settings.camera_noise * (95 - camera.quality))
    buffer = io.BytesIO()
    Image.fromarray(image_HW3).save(buffer, "JPEG", quality=min(max(quality, 15), 95))
    return buffer.getvalue()
