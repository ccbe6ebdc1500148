"""OSNet from its papers (arXiv:1905.00953, 1910.06827), written for reading: plain functions over a state dict whose
names are torchreid's, one layer after the other."""

import torch
from torch.nn import functional as F


def embedding(state: dict[str, torch.Tensor], images: torch.Tensor) -> torch.Tensor:
    """[B, 512]: the mean of the map over its cells, through the fully connected layer, as in evaluation."""
    means = feature_map(state, images).mean(dim=(2, 3))
    line = means @ state["fc.0.weight"].T + state["fc.0.bias"]
    return normalised(state, "fc.1", line[:, :, None, None])[:, :, 0, 0].clamp(min=0)


def feature_map(state: dict[str, torch.Tensor], images: torch.Tensor) -> torch.Tensor:
    """[B, D, H / 16, W / 16] of images [B, 3, H, W], as in evaluation."""
    image = F.conv2d(images, state["conv1.conv.weight"], stride=2, padding=3)
    image = F.max_pool2d(normalised(state, "conv1.bn", image).clamp(min=0), 3, stride=2, padding=1)
    for stage in (2, 3, 4):
        for place in (0, 1):
            image = block(state, f"conv{stage}.{place}", image)
        if stage < 4:
            halving = f"pool{stage}.0" if f"pool{stage}.0.conv.weight" in state else f"conv{stage}.2.0"
            image = F.avg_pool2d(unit(state, halving, image).clamp(min=0), 2)
    return unit(state, "conv5", image).clamp(min=0)


def block(state: dict[str, torch.Tensor], name: str, image: torch.Tensor) -> torch.Tensor:
    start = unit(state, f"{name}.conv1", image).clamp(min=0)
    total = torch.zeros_like(start)
    for depth in (1, 2, 3, 4):
        stream = start
        for light in range(depth):
            stream = light_unit(state, stream_name(state, name, depth, light), stream)
        total = total + stream * gate(state, name, stream)
    residual = F.conv2d(total, state[f"{name}.conv3.conv.weight"])
    instance = f"{name}.IN.weight" in state
    inside = instance and f"{name}.conv3.bn.weight" not in state
    residual = normalised(state, f"{name}.IN" if inside else f"{name}.conv3.bn", residual)
    if f"{name}.downsample.conv.weight" in state:
        image = unit(state, f"{name}.downsample", image)
    both = residual + image
    if instance and not inside:
        both = normalised(state, f"{name}.IN", both)
    return both.clamp(min=0)


def stream_name(state: dict[str, torch.Tensor], name: str, depth: int, light: int) -> str:
    listed = f"{name}.conv2.{depth - 1}.layers.{light}"
    if f"{listed}.conv1.weight" in state:
        return listed
    letter = "abcd"[depth - 1]
    return f"{name}.conv2{letter}" if depth == 1 else f"{name}.conv2{letter}.{light}"


def light_unit(state: dict[str, torch.Tensor], name: str, image: torch.Tensor) -> torch.Tensor:
    image = F.conv2d(image, state[f"{name}.conv1.weight"])
    image = F.conv2d(image, state[f"{name}.conv2.weight"], padding=1, groups=image.shape[1])
    return normalised(state, f"{name}.bn", image).clamp(min=0)


def gate(state: dict[str, torch.Tensor], name: str, image: torch.Tensor) -> torch.Tensor:
    means = image.mean(dim=(2, 3), keepdim=True)
    for layer in ("fc1", "fc2"):
        means = F.conv2d(means, state[f"{name}.gate.{layer}.weight"], state[f"{name}.gate.{layer}.bias"])
        means = means.clamp(min=0) if layer == "fc1" else 1 / (1 + (-means).exp())
    return means


def unit(state: dict[str, torch.Tensor], name: str, image: torch.Tensor) -> torch.Tensor:
    return normalised(state, f"{name}.bn", F.conv2d(image, state[f"{name}.conv.weight"]))


def normalised(state: dict[str, torch.Tensor], name: str, image: torch.Tensor) -> torch.Tensor:
    """A batch norm where there are running statistics, else an instance norm."""
    if f"{name}.running_mean" in state:
        mean, variance = (state[f"{name}.running_{what}"][:, None, None] for what in ("mean", "var"))
    else:
        mean = image.mean(dim=(2, 3), keepdim=True)
        variance = ((image - mean) ** 2).mean(dim=(2, 3), keepdim=True)
    scale, shift = (state[f"{name}.{what}"][:, None, None] for what in ("weight", "bias"))
    return (image - mean) / (variance + 1e-5).sqrt() * scale + shift
