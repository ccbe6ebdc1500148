"""Camera-wise centring, image by image, in float64."""

import numpy as np


def centred(features_NSD, cameras_N):
    """Unit rows minus n / (n + 10) of (mean of the camera - mean of all images with a camera), at unit length."""
    rows_NSD = np.asarray(features_NSD, np.float64)
    known = [i for i, camera in enumerate(cameras_N) if camera >= 0]
    everyone = sum((rows_NSD[i] for i in known), np.zeros(rows_NSD.shape[1:])) / max(len(known), 1)
    found = rows_NSD.copy()
    for i in known:
        own = [j for j in known if cameras_N[j] == cameras_N[i]]
        mean = sum(rows_NSD[j] for j in own) / len(own)
        moved = rows_NSD[i] - len(own) / (len(own) + 10) * (mean - everyone)
        found[i] = moved / np.linalg.norm(moved, axis=-1, keepdims=True)
    return found
