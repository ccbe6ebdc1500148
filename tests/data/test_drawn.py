"""Drawn pedestrians: what the knobs do, who the twins are, and what lies on disk."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reidray.data import dukemtmc_video
from reidray.data.drawn import (
    GROUPS,
    SPLITS,
    DrawnSettings,
    draw_picture,
    population,
    write_market1501,
    write_tracklets,
)
from reidray.data.drawn.camera import develop, make_camera
from reidray.data.drawn.canvas import Canvas
from reidray.data.drawn.figure import draw_figure, fit
from reidray.data.records import counts

CLEAN = DrawnSettings(
    seed=3,
    train_persons=5,
    validation_persons=3,
    test_persons=4,
    num_cameras=4,
    cameras_per_person=(2, 3),
    images_per_camera=(2, 3),
    twins=0.0,
    twin_changes=2,
    camera_strength=0.0,
    camera_blur=0.0,
    camera_noise=0.0,
    view_spread=0.0,
    occlusion=0.0,
    misalignment=0.0,
    pedestrians_behind=0.0,
    frames=0,
    fresh_scenes=0,
    camera_seed=1,
)
HARD = replace(
    CLEAN,
    twins=0.5,
    camera_strength=1.0,
    camera_blur=1.0,
    camera_noise=1.0,
    view_spread=1.0,
    occlusion=1.0,
    misalignment=1.0,
    pedestrians_behind=1.0,
)
MARKET_NAME = re.compile(r"^(-1|\d{4})_c(\d)s(\d)_(\d{6})_(\d{2})\.jpg$")


def pictures(settings: DrawnSettings, count: int = 12) -> list:
    keys = [(person, camera) for person in range(5) for camera in range(4)]
    return [draw_picture(settings, "train", person, camera, 0) for person, camera in keys[:count]]


def files(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    root = tmp_path_factory.mktemp("drawn") / "set"
    return root, write_market1501(HARD, root, processes=1)


def test_two_processes_write_the_same_bytes_as_one(drawn, tmp_path):
    root, counts = drawn
    seen = []
    again = write_market1501(HARD, tmp_path / "two", processes=2, progress=lambda *told: seen.append(told))
    assert again == counts
    assert files(tmp_path / "two") == files(root)
    assert seen[-1] == (sum(counts.values()),) * 2
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})


def test_a_picture_does_not_depend_on_what_was_drawn_before():
    alone = draw_picture(HARD, "test", 2, 1, 1)
    pictures(HARD, 3)
    again = draw_picture(HARD, "test", 2, 1, 1)
    assert alone.jpeg == again.jpeg
    assert (alone.mask == again.mask).all()


def test_names_are_those_of_market1501_and_splits_share_no_person(drawn):
    root, counts = drawn
    persons = {}
    for folder, count in counts.items():
        names = [path.name for path in (root / folder).iterdir()]
        assert len(names) == count
        assert all(MARKET_NAME.match(name) for name in names)
        persons[folder] = {name.split("_")[0] for name in names}
    train, validation = persons["bounding_box_train"], persons["validation_gallery"]
    test = persons["bounding_box_test"] - {"-1", "0000"}
    assert {"-1", "0000"} <= persons["bounding_box_test"]
    assert not train & validation
    assert not train & test
    assert not validation & test
    assert [len(train), len(validation), len(test)] == [5, 3, 4]
    told = json.loads((root / "attributes.json").read_text())
    assert set(told) == train | validation | test
    assert {told[person]["split"] for person in test} == {"test"}


def test_every_query_has_a_match_under_another_camera(drawn):
    root, _ = drawn
    for queries, gallery in (("query", "bounding_box_test"), ("validation_query", "validation_gallery")):
        found = [MARKET_NAME.match(path.name).groups()[:2] for path in (root / gallery).iterdir()]
        asked = [MARKET_NAME.match(path.name).groups()[:2] for path in (root / queries).iterdir()]
        assert len(set(asked)) == len(asked) > 0
        for person, camera in asked:
            assert any(other == person and where != camera for other, where in found)


def test_each_picture_on_disk_has_its_size_and_a_mask_of_five_parts(drawn):
    root, counts = drawn
    used = set()
    for folder in counts:
        for path in (root / folder).iterdir():
            image = Image.open(io.BytesIO(path.read_bytes()))
            mask = np.asarray(Image.open(root / "masks" / folder / f"{path.stem}.png"))
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (64, 128))
            assert mask.shape == (128, 64)
            assert mask.dtype == np.uint8
            used |= set(np.unique(mask).tolist())
    assert used == {0, 1, 2, 3, 4}


def test_a_complete_data_set_is_left_alone_and_other_settings_are_refused(drawn):
    root, counts = drawn
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert write_market1501(HARD, root, processes=1) == counts
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
    with pytest.raises(ValueError, match="settings"):
        write_market1501(replace(HARD, seed=4), root, processes=1)


def test_a_foreign_folder_and_a_file_are_refused_and_left_as_they_were(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="empty"):
        write_market1501(CLEAN, tmp_path, processes=1)
    with pytest.raises(ValueError, match="folder"):
        write_market1501(CLEAN, tmp_path / "notes.txt", processes=1)
    assert files(tmp_path) == {"notes.txt": b"mine"}


def test_an_interrupted_data_set_is_finished_with_the_same_bytes(drawn, tmp_path):
    root, counts = drawn

    def stop(done: int, total: int) -> None:
        if done > total // 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_market1501(HARD, tmp_path / "set", processes=1, progress=stop)
    assert not (tmp_path / "set" / "drawn.json").exists()
    with pytest.raises(ValueError, match="empty"):
        write_market1501(CLEAN, tmp_path / "set", processes=1)
    assert write_market1501(HARD, tmp_path / "set", processes=1) == counts
    assert files(tmp_path / "set") == files(root)


def test_a_data_set_that_lost_pictures_is_refused(tmp_path):
    write_market1501(replace(CLEAN, train_persons=1, validation_persons=0, test_persons=0), tmp_path, processes=1)
    next((tmp_path / "bounding_box_train").iterdir()).unlink()
    with pytest.raises(ValueError, match="give another folder"):
        write_market1501(replace(CLEAN, train_persons=1, validation_persons=0, test_persons=0), tmp_path, processes=1)


@pytest.mark.parametrize("changes", [0, 1, 2, 4])
def test_twins_differ_from_their_model_in_at_most_twin_changes_groups(changes):
    people = population(replace(CLEAN, train_persons=40, twins=0.8, twin_changes=changes), "train")
    pairs = zip(people.identities, people.models, strict=True)
    twins = [(twin, people.identities[model]) for twin, model in pairs if model is not None]
    assert len(twins) > 20
    for twin, model in twins:
        differ = [group for group in GROUPS if getattr(twin, group) != getattr(model, group)]
        assert len(differ) <= changes
        assert (changes == 0) == (not differ)
        assert differ != ["body"]


def test_without_twins_nobody_has_a_model():
    assert all(population(CLEAN, split).models == (None,) * CLEAN.persons(split) for split in SPLITS)


def test_the_mask_is_where_the_figure_covers_the_background():
    for person, identity in enumerate(population(replace(CLEAN, train_persons=12), "train").identities):
        view, phase = 0.7 * person, 1.1 * person
        place = fit(identity, view=view, phase=phase, top=4, height=120, centre=32, width=56)
        dark, bright = (Canvas(np.full((128, 64, 3), value, np.float32)) for value in (0, 255))
        for canvas in (dark, bright):
            draw_figure(canvas, identity, place, view=view, phase=phase, light=0.1)
        assert (dark.parts_HW == bright.parts_HW).all()
        cover = 1 - (bright.image_HW3 - dark.image_HW3).mean(2) / 255
        figure = dark.parts_HW > 0
        assert cover[figure].min() > 0.5
        assert (cover[~figure] > 0.76).mean() < 0.001
        assert 0.25 < figure.mean() < 0.6


def test_pedestrians_behind_change_nothing_inside_the_mask():
    behind = replace(CLEAN, pedestrians_behind=1.0)
    changed = False
    for plain, crowded in zip(pictures(CLEAN), pictures(behind), strict=True):
        assert (plain.mask == crowded.mask).all()
        inside = plain.mask > 0
        core = inside & np.roll(inside, 1, 0) & np.roll(inside, -1, 0) & np.roll(inside, 1, 1) & np.roll(inside, -1, 1)
        assert (plain.image[core] == crowded.image[core]).mean() > 0.97
        changed |= bool((plain.image != crowded.image).any())
    assert changed


def test_a_clean_box_shows_a_whole_person_that_fills_it():
    shots = pictures(CLEAN, 20)
    for shot in shots:
        rows = np.flatnonzero((shot.mask > 0).any(1))
        assert 0 < rows[0] < 14
        assert 114 < rows[-1] < 127
        assert set(np.unique(shot.mask)) == {0, 1, 2, 3, 4}
    assert 0.36 < np.mean([shot.mask > 0 for shot in shots]) < 0.54


def test_occlusion_takes_from_the_mask_and_adds_nothing():
    plain, hidden = pictures(CLEAN, 20), pictures(replace(CLEAN, occlusion=1.0), 20)
    assert any(shot.occluded for shot in hidden)
    assert not any(shot.occluded for shot in plain)
    for a, b in zip(plain, hidden, strict=True):
        assert (b.mask[b.mask != a.mask] == 0).all()
        assert b.occluded or a.jpeg == b.jpeg
    assert any((a.mask != b.mask).any() for a, b in zip(plain, hidden, strict=True))


def test_misalignment_moves_the_box_and_leaves_the_view():
    plain, moved = pictures(CLEAN), pictures(replace(CLEAN, misalignment=1.0))
    centre = [[np.flatnonzero((shot.mask > 0).any(1)).mean() for shot in shots] for shots in (plain, moved)]
    assert np.std(centre[1]) > 3 * np.std(centre[0])
    assert [shot.view for shot in plain] == [shot.view for shot in moved]


def test_view_spread_turns_people_away_from_the_cameras_view():
    for camera in range(4):
        assert len({draw_picture(CLEAN, "train", person, camera, 0).view for person in range(5)}) == 1
    spread = replace(CLEAN, view_spread=1.0)
    assert len({draw_picture(spread, "train", person, 0, 0).view for person in range(5)}) == 5


@pytest.mark.parametrize("knob", ["camera_strength", "camera_blur", "camera_noise"])
def test_each_knob_of_the_camera_changes_the_pixels_and_never_the_mask(knob):
    plain, changed = pictures(CLEAN, 4), pictures(replace(CLEAN, **{knob: 1.0}), 4)
    for a, b in zip(plain, changed, strict=True):
        assert (a.mask == b.mask).all()
        assert (a.image != b.image).any()


def test_blur_removes_detail_and_noise_adds_it_and_shrinks_the_file():
    def detail(shots: list) -> float:
        return float(np.mean([np.abs(np.diff(shot.image.astype(float), axis=1)).mean() for shot in shots]))

    plain, blurred, noisy = (
        pictures(replace(CLEAN, camera_blur=blur, camera_noise=noise)) for blur, noise in ((0, 0), (1, 0), (0, 1))
    )
    assert detail(blurred) < 0.9 * detail(plain)
    assert detail(noisy) > 1.1 * detail(plain)


def test_without_strength_blur_and_noise_the_camera_changes_nothing():
    rng = np.random.default_rng(0)
    image_HW3 = rng.integers(0, 256, (128, 64, 3)).astype(np.float32)
    assert (develop(image_HW3, make_camera(CLEAN, 0), CLEAN, rng) == image_HW3).all()


def test_cameras_and_scenes_follow_camera_seed_and_people_follow_seed():
    other_cameras, other_people = replace(CLEAN, camera_seed=9), replace(CLEAN, seed=9)
    assert make_camera(CLEAN, 0) == make_camera(other_people, 0) != make_camera(other_cameras, 0)
    assert population(CLEAN, "train").identities == population(other_cameras, "train").identities
    assert population(CLEAN, "train").identities != population(other_people, "train").identities


def test_fresh_scenes_change_what_is_behind_but_not_the_person():
    plain, fresh = pictures(CLEAN), pictures(replace(CLEAN, fresh_scenes=5))
    for a, b in zip(plain, fresh, strict=True):
        assert (a.mask == b.mask).all()
        assert (a.image[a.mask == 0] != b.image[a.mask == 0]).any()


def test_the_jpeg_is_the_picture():
    shot = draw_picture(CLEAN, "train", 0, 0, 0)
    decoded = np.asarray(Image.open(io.BytesIO(shot.jpeg)), float)
    assert np.abs(decoded - shot.image).mean() < 6
    assert (np.asarray(Image.open(io.BytesIO(shot.mask_png()))) == shot.mask).all()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seed", -1),
        ("num_cameras", 0),
        ("cameras_per_person", (2, 9)),
        ("images_per_camera", (3, 2)),
        ("twins", 1.5),
        ("camera_blur", -0.1),
        ("misalignment", float("nan")),
    ],
)
def test_impossible_settings_are_refused_by_name(field, value):
    with pytest.raises(ValueError, match=field):
        replace(CLEAN, **{field: value})


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="train, validation, test"):
        draw_picture(CLEAN, "holiday", 0, 0, 0)


# ---- tracklets


@pytest.fixture(scope="module")
def walks(tmp_path_factory):
    root = tmp_path_factory.mktemp("walks")
    return root, write_tracklets(replace(CLEAN, frames=6), root, processes=1)


def test_drawn_tracklets_are_read_as_those_of_dukemtmc_video(walks):
    root, written = walks
    dataset = dukemtmc_video.read(root)
    assert {name: len(split.images) for name, split in dataset.splits.items()} == written
    assert dataset.ignored == {}
    for split in dataset.splits.values():
        people = [frames for one, frames in _tracks(split) if "/0000/" not in one.name]
        assert all(3 <= len(frames) <= 6 for frames in people)
        assert {len(frames) for frames in people} > {3, 6}
    numbers = counts(dataset)
    assert (numbers["train persons"], numbers["gallery persons"], numbers["distractors"]) == (5, 4, 1)
    assert not [name for name in numbers if "without an answer" in name]


def _tracks(split):
    first = 0
    for one in split.tracklets:
        yield one, split.images[first : first + one.frames]
        first += one.frames


def test_a_tracklet_is_a_stretch_of_one_walk(walks):
    """Without a camera's own faults, neighbouring frames differ by a step, and frames of other persons by more."""
    train = dukemtmc_video.read(walks[0]).splits["train"]
    images = [[np.asarray(Image.open(frame.path), np.float32) for frame in frames] for _, frames in _tracks(train)]
    within = np.mean([np.abs(one - other).mean() for track in images for one, other in pairwise(track)])
    across = np.mean([np.abs(one[0] - other[0]).mean() for one, other in pairwise(images)])
    assert within < across


def test_every_query_tracklet_has_a_match_under_another_camera(walks):
    dataset = dukemtmc_video.read(walks[0])
    for queries, gallery in (("query", "gallery"), ("validation_query", "validation_gallery")):
        asked, found = dataset.splits[queries], dataset.splits[gallery]
        there = set(zip(found.persons, found.cameras, strict=True))
        for person, camera in zip(asked.persons, asked.cameras, strict=True):
            assert any(other == person and where != camera for other, where in there)


def test_tracklets_do_not_depend_on_the_number_of_processes_and_are_found_again(walks, tmp_path):
    root, written = walks
    settings = replace(CLEAN, frames=6)
    assert write_tracklets(settings, tmp_path / "two", processes=2) == written
    for path in root.rglob("*.jpg"):
        assert path.read_bytes() == (tmp_path / "two" / path.relative_to(root)).read_bytes()
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*.jpg")}
    assert write_tracklets(settings, root, processes=1) == written
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*.jpg")} == before
    next(root.rglob("*.jpg")).unlink()
    with pytest.raises(ValueError, match=r"pictures in .*, got"):
        write_tracklets(settings, root, processes=1)


def test_pictures_that_were_drawn_before_there_were_tracklets_are_found_again():
    assert "frames" not in CLEAN.written()
    assert replace(CLEAN, frames=3).written()["frames"] == 3
    with pytest.raises(ValueError, match="expected frames to be 0 to 99"):
        replace(CLEAN, frames=100)
