"""Start weights: read from the checkpoints people have, written so that a run can say what it started from.

A checkpoint is data, never a program (`reidray.storage.weights_file`). The keys differ by toolkit: LAYOUTS lists how
each names the same ResNet, WRAPPERS and PREFIXES what stands before that, SECTIONS in which dictionary it lies. The
reading that matches most keys is taken and named in the report, with what it leaves over on either side. A tensor of
another shape is an error.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from reidray.features import Network
from reidray.storage.weights_file import is_safetensors, read_safetensors, read_weights_file
from reidray.storage.weights_kind import advice, kind_of

SHIPPED = Path(__file__).resolve().parents[1] / "weights" / "small.safetensors"
EARLY = SHIPPED.with_name("small_early.safetensors")
FORMAT = "reidray-weights-1"
IMAGENET = {"resnet18": "ResNet18_Weights.IMAGENET1K_V1", "resnet50": "ResNet50_Weights.IMAGENET1K_V1"}

State = dict[str, Tensor]

_TRUNK = re.compile(
    r"backbone\.((layer\d|stages|bn[123]|conv1\.bn|conv[2-5]|pool[23])\.|model\.(?!(fc|.*head|.*classifier|last_)))"
)
"""Names of layers that stand in a trunk alone: a network that lacks one is not the checkpoint's."""


def _numbered(first_stage: int) -> tuple[tuple[str, str], ...]:
    """Prefixes of a trunk in a Sequential named base: conv1, bn1, ..., layer1 at `first_stage`."""
    stages = ((f"base.{first_stage + n}.", f"backbone.layer{n + 1}.") for n in range(4))
    heads = (("feat_bn.", "necks.0."), ("bnneck.", "necks.0."), ("gap.", "pooling."))
    return (("base.0.", "backbone.conv1."), ("base.1.", "backbone.bn1."), *stages, *heads)


# name -> (their prefix, our prefix), first match counts; ties between layouts go to the earlier one
LAYOUTS: dict[str, tuple[tuple[str, str], ...]] = {
    # its OSNets; fc is the layer that model.embedding_layer keeps
    "torchreid": (("conv", "backbone.conv"), ("pool", "backbone.pool"), ("fc.", "embeddings.0.")),
    "torchvision": (("", "backbone."),),
    "moco": (("encoder_q.", "backbone."),),  # also LUPerson
    # PLIP's release is the image encoder alone, as torchvision's keys are; these are of whole models, CLIP's as well
    "plip": tuple((theirs, "backbone.") for theirs in ("image_encoder.backbone.", "image_encoder.", "visual.")),
    # also DINO and fast-reid
    "openunreid": (("backbone.", "backbone."), ("head.feat_bn.", "necks.0."), ("global_pooling.", "pooling.")),
    "timm": (("", "backbone.model."),),
    "reidray": (("", ""),),
    "cluster_contrast": _numbered(4),  # also SpCL and PPLR
    "mmt": _numbered(3),  # its stem has no ReLU, ours has one
    "strong_baseline": (("base.", "backbone."), ("bottleneck.", "necks.0.")),
}
# what toolkits put before all keys; averaged networks first, since peers evaluate those
WRAPPERS = ("", "mean_net.", "teacher.", "net.", "student.", "model.")
# the words such prefixes are made of: any row of them at the beginning of keys is tried as well, after WRAPPERS
PREFIXES = frozenset(
    ("backbone", "base_encoder", "encoder", "encoder_q", "mean_net", "model", "net", "network", "student", "teacher")
)
# parts of a key that say nothing, wherever they stand: of DDP, torch.compile, FSDP, checkpointed layers
WRAPPED = frozenset(("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"))
# dictionaries inside a checkpoint that are looked into first
SECTIONS = (
    *("state_dict", "teacher", "student", "model", "ImgEncoder_state_dict", "state_dict_1"),
    *("model_state_dict", "model_state", "network", "net", "weights"),
)


@dataclass(frozen=True)
class WeightReport:
    """What loading did: how many tensors were taken, which were left over on either side, by which rule, from where."""

    loaded: int
    missing: list[str]  # names of the network that got nothing and keep their start values
    unexpected: list[str]  # keys of the checkpoint that went nowhere
    rule: str
    origin: str
    renamed: dict[str, int] = field(default_factory=dict)  # "theirs -> ours": how many keys were renamed so
    copied: int = 0  # tensors of the embedding layer that those of the parts begin with as well


def load_weights(embedder: Network, source: str | Path, *, strict_shapes: bool = True) -> WeightReport:
    """Load start weights into a network, in place; nothing is changed if an error is raised.

    Args:
      embedder: any backbone; necks, pooling and part classifier are loaded where the source has them.
      source: "shipped" (the package's, for the small backbone), "shipped_early" (after the first of its epochs: a
        weaker start), "imagenet" (torchvision's, for the ResNets; downloaded and kept in torch's cache), "none", or a
        file of any name: safetensors, or a checkpoint of PyTorch.
      strict_shapes: True: a tensor of another shape is an error; False: it is left out and listed on both sides.

    Returns:
      A WeightReport.

    Raises:
      ValueError: one sentence; nothing matches, another architecture, damaged or foreign file, no network.
    """
    source = str(source)
    own = embedder.state_dict()
    if source == "none":
        return WeightReport(0, sorted(own), [], "start values", "none")
    origin = source
    if source == "imagenet":
        origin, sections = f"torchvision {IMAGENET.get(embedder.name, '')}", {"": _imagenet(embedder.name)}
    elif source in ("shipped", "shipped_early"):
        file = SHIPPED if source == "shipped" else EARLY
        origin, sections = f"shipped {file.name}", {"": _shipped(embedder.name, file)}
    else:
        sections = dict(_sections(_read(Path(source)), "", 2))
    match = _best_match(sections, own, origin, embedder.name)
    for name, key in list(match.keys_by_name.items()):
        tensor = match.tensors[key]
        if tensor.shape != own[name].shape:
            if strict_shapes:
                raise ValueError(
                    f"{origin}: {key} should have the shape {tuple(own[name].shape)} of {name} but has "
                    f"{tuple(tensor.shape)}; {advice(match.tensors, embedder.name)}"
                )
            match.left_over.append(key)
            del match.keys_by_name[name]
        elif tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{origin}: {key} holds values that are not finite; take a checkpoint from before that")
    loaded = {name: match.tensors[key] for name, key in match.keys_by_name.items()}
    if not loaded:
        raise ValueError(f"{origin}: no tensor has the shape it should have; is this a checkpoint of {embedder.name}?")
    copies = _for_parts(loaded, own)
    embedder.load_state_dict(loaded | copies, strict=False)
    return WeightReport(
        len(loaded),
        sorted(set(own) - set(loaded) - set(copies)),
        sorted(match.left_over),
        match.rule,
        origin,
        dict(Counter(_renaming(key, name) for name, key in match.keys_by_name.items())),
        len(copies),
    )


def save_weights(
    embedder_or_state: nn.Module | Mapping[str, Tensor], path: str | Path, *, recipe: dict[str, Any], seed: int
) -> str:
    """Write weights with where they come from as safetensors; atomic, and equal input gives equal bytes.

    Args:
      embedder_or_state: a network or its state dict.
      path: the file; its folder must exist, an older file is replaced.
      recipe: how the weights were made; JSON values only.
      seed: of that run.

    Returns:
      The hash of the tensors, as `weights_hash`.
    """
    state = embedder_or_state.state_dict() if isinstance(embedder_or_state, nn.Module) else embedder_or_state
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(state.items())}
    digest = weights_hash(tensors)
    metadata = {"format": FORMAT, "recipe": json.dumps(recipe, sort_keys=True), "seed": str(seed), "sha256": digest}
    data = _with_sorted_metadata(to_safetensors(tensors, metadata=metadata))
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)  # after an error only
    return digest


def weights_hash(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over the tensors in the order of their names: name, type, shape, bytes; not their device or strides."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _with_sorted_metadata(data: bytes) -> bytes:
    """A safetensors file with its metadata sorted: the library writes them in an order that changes between runs."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header = {"__metadata__": dict(sorted(header.pop("__metadata__").items())), **header}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors start at a multiple of 8
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


def _metadata(path: Path) -> dict[str, str]:
    with safe_open(str(path), framework="pt") as file:
        return file.metadata() or {}


def _shipped(name: str, file: Path) -> State:
    if name != "small":
        raise ValueError(f"the shipped weights fit model.backbone=small, not {name}: set model.weights")
    if not file.is_file():
        raise ValueError(
            f"the shipped weights {file} are not there: reinstall reidray, make them with jobs/pretrain.py, or set "
            f"model.weights=none"
        )
    return _read_safetensors(file)


def _imagenet(name: str) -> State:
    if name not in IMAGENET:
        shipped = "shipped, " if name == "small" else ""
        raise ValueError(f"there are no ImageNet weights for model.backbone={name}: use {shipped}none or a file")
    from torchvision import models

    weights = models.get_weight(IMAGENET[name])
    try:
        return dict(weights.get_state_dict(progress=False, check_hash=True))
    except (OSError, RuntimeError) as error:  # no network, or a download that does not have its hash
        raise ValueError(
            f"the ImageNet weights of {name} could not be downloaded ({error}): fetch {weights.url} on a "
            f"connected machine and set model.weights to the file"
        ) from error


def _read_safetensors(path: Path) -> State:
    """The tensors of a file; where reidray wrote it, checked against the hash inside."""
    state = read_safetensors(path)
    metadata = _metadata(path)
    if metadata.get("format") == FORMAT and weights_hash(state) != metadata.get("sha256"):
        raise ValueError(f"{path}: the tensors do not have the hash written inside; copy the file again")
    return state


def _read(path: Path) -> Any:
    """Whatever a checkpoint file holds; tensors and plain containers only."""
    return _read_safetensors(path) if is_safetensors(path) else read_weights_file(path)


def _sections(content: Any, name: str, depth: int) -> Iterator[tuple[str, State]]:
    """The dictionaries of tensors in a checkpoint, `depth` levels deep, the well-known ones first."""
    if not isinstance(content, Mapping):
        return
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    if tensors:
        yield name, tensors
    if depth:
        for key in sorted(content, key=lambda key: SECTIONS.index(key) if key in SECTIONS else len(SECTIONS)):
            yield from _sections(content[key], f"{name}/{key}".lstrip("/"), depth - 1)


class _Match(NamedTuple):
    """A reading of a checkpoint: which of its keys goes to which of our names."""

    rule: str
    tensors: State
    keys_by_name: dict[str, str]
    left_over: list[str]
    foreign: list[str]  # left over though they belong to a trunk


def _best_match(sections: dict[str, State], own: State, origin: str, backbone: str) -> _Match:
    """The section, wrapper and layout that match most names; of equals the first."""
    if not sections:
        raise ValueError(f"{origin} holds no tensors by name; a checkpoint's state dict was expected")
    readings = (
        _match(tensors, own, section, wrapper, layout)
        for section, tensors in sections.items()
        for wrapper in _wrappers(tensors)
        for layout in LAYOUTS
    )
    best = max(readings, key=lambda match: len(match.keys_by_name))
    if not best.keys_by_name:
        whole = next((tensors for tensors in sections.values() if kind_of(tensors)), best.tensors)
        raise ValueError(
            f"{origin}: none of its keys ({', '.join(_shown(whole)[:3])}, ...) fits the network under any known layout"
            f"; {advice(whole, backbone)}"
        )
    if best.foreign:
        raise ValueError(
            f"{origin}: {_shown(best.foreign)[0]} and {len(best.foreign) - 1} more keys belong to layers that the "
            f"network lacks (read as {best.rule}); {advice(best.tensors, backbone)}"
        )
    return best


def _match(tensors: State, own: State, section: str, wrapper: str, layout: str) -> _Match:
    compiled = [f"without {word}." for word in sorted(WRAPPED - {"module"}) if any(word in key for key in tensors)]
    named = [f"{what} {name}" for what, name in (("prefix", wrapper), ("section", section)) if name]
    match = _Match(", ".join([layout, *compiled, *named]), tensors, {}, [], [])
    for key in tensors:
        name = _rename(key, wrapper, LAYOUTS[layout])
        if name in own and name not in match.keys_by_name:
            match.keys_by_name[name] = key
        else:
            match.left_over.append(key)
            if name and _TRUNK.match(name):
                match.foreign.append(key)
    return match


def _rename(key: str, wrapper: str, pairs: tuple[tuple[str, str], ...]) -> str | None:
    """Our name for a key under a layout, None where the layout has none."""
    key = _unwrapped(key)
    if not key.startswith(wrapper):
        return None
    key = key.removeprefix(wrapper)
    return next((ours + key.removeprefix(theirs) for theirs, ours in pairs if key.startswith(theirs)), None)


def _renaming(key: str, name: str) -> str:
    """What became what, for a report: fc.0.weight and embeddings.0.0.weight give "fc.* -> embeddings.0.*"."""
    theirs, ours = key.split("."), name.split(".")
    while theirs and ours and theirs[-1] == ours[-1]:
        theirs.pop()
        ours.pop()
    return " -> ".join(".".join([*_shown(words), "*"]) for words in (theirs, ours))


def _for_parts(loaded: State, own: State) -> State:
    """Weights of the embedding layers of parts, where the checkpoint has one for whole images alone.

    Not the running statistics: parts have others, which model.calibrate takes from the training images.
    """
    copies = {}
    for name in own:
        whole = re.sub(r"^embeddings\.\d+\.", "embeddings.0.", name)
        if name not in loaded and whole in loaded and name.endswith((".weight", ".bias")):
            copies[name] = loaded[whole]
    return copies


def _wrappers(tensors: State) -> list[str]:
    """WRAPPERS, and every row of the words of PREFIXES that keys of this checkpoint begin with."""
    found: set[str] = set()
    for key in tensors:
        wrapper = ""
        for word in _unwrapped(key).split("."):
            if word not in PREFIXES:
                break
            wrapper += f"{word}."
            found.add(wrapper)
    return [*WRAPPERS, *sorted(found.difference(WRAPPERS))]


@lru_cache(maxsize=100_000)
def _unwrapped(key: str) -> str:
    return ".".join(word for word in key.split(".") if word not in WRAPPED)


def _shown(keys: Iterable[str]) -> list[str]:
    """Keys for a message: they come from a file of somebody, and a terminal may not obey them."""
    return [key[:80] if key.isprintable() else ascii(key)[:80] for key in keys]
