"""Cycle consistency across cameras, image by image, in the words of the definition."""


def camera_cycle(indices_NK, cameras_N):
    """Share of the images with a camera whose cycle is closed; None where fewer than two cameras are known."""
    known = [i for i, camera in enumerate(cameras_N) if camera >= 0]
    if len({cameras_N[i] for i in known}) < 2:
        return None

    def nearest(image, wanted):
        return next((j for j in indices_NK[image] if j != image and cameras_N[j] >= 0 and wanted(cameras_N[j])), None)

    closed = 0
    for i in known:
        own = cameras_N[i]
        across = nearest(i, lambda camera, own=own: camera != own)
        if across is None:
            continue
        back = nearest(across, lambda camera, own=own: camera == own)
        closed += back is not None and (back == i or back in list(indices_NK[i]))
    return closed / len(known)
