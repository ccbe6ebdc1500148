"""The persons of a split, and which cameras see them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from .identity import SMALL_GROUPS, Identity, draw_identity, draw_twin
from .settings import SPLITS, DrawnSettings, Purpose, stream


@dataclass(frozen=True)
class Population:
    """The persons of a split, and which cameras see them.

    identities: one per person, in order. models: for a twin, the person whose near-copy it is, else None.
    visits: (person, camera, pictures or tracklets), persons ascending. first: the number of person 0 in file names.
    """

    identities: tuple[Identity, ...]
    models: tuple[int | None, ...]
    visits: tuple[tuple[int, int, int], ...]
    first: int

    def jobs(self) -> Iterator[tuple[int, int, int]]:
        """Every (person, camera, picture) of the split, in order."""
        return ((person, camera, picture) for person, camera, count in self.visits for picture in range(count))


@lru_cache(maxsize=16)
def population(settings: DrawnSettings, split: str) -> Population:
    """The persons of a split ("train", "validation" or "test") and their visits; no two splits share a person."""
    if split not in SPLITS:
        raise ValueError(f"drawn pedestrians: expected a split of {', '.join(SPLITS)}, got {split!r}")
    code = SPLITS.index(split)
    identities: list[Identity] = []
    models: list[int | None] = []
    visits: list[tuple[int, int, int]] = []
    for person in range(settings.persons(split)):
        rng = stream(settings.seed, Purpose.TWIN, code, person)
        is_twin, model = rng.random() < settings.twins, int(rng.integers(max(person, 1)))
        small = stream(settings.seed, Purpose.SMALL_TWIN, code, person)
        if small.random() < settings.small_twins and person > 0:
            model = int(small.integers(person))
            identities.append(draw_twin(small, identities[model], changes=1, visible=SMALL_GROUPS))
            models.append(model)
        elif is_twin and person > 0:
            identities.append(draw_twin(rng, identities[model], changes=settings.twin_changes))
            models.append(model)
        else:
            identities.append(draw_identity(stream(settings.seed, Purpose.IDENTITY, code, person)))
            models.append(None)
        rng = stream(settings.seed, Purpose.VISITS, code, person)
        count = int(rng.integers(settings.cameras_per_person[0], settings.cameras_per_person[1] + 1))
        for camera in sorted(rng.permutation(settings.num_cameras)[:count].tolist()):
            fewest, most = settings.images_per_camera
            visits.append((person, camera, int(rng.integers(fewest, most + 1))))
    first = 1 + sum(settings.persons(earlier) for earlier in SPLITS[:code])
    return Population(tuple(identities), tuple(models), tuple(visits), first)
