"""The knobs of hard drawn pedestrians: postures, cut boxes, half hidden people, and twins in one small thing."""

from __future__ import annotations

import math
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from reidray.data.drawn import GROUPS, DrawnSettings, draw_picture, population
from reidray.data.drawn.__main__ import main
from reidray.data.drawn.canvas import Canvas
from reidray.data.drawn.identity import SMALL_GROUPS, draw_identity
from reidray.data.drawn.pose import FOREARM, SHOULDER, UPPER_ARM
from reidray.data.drawn.posed_figure import draw_posed
from reidray.data.drawn.posture import BARS_Y, CRANK, KINDS, PEDALS_Y, fit_posture, take_posture

HEAD, TORSO, LEGS, SHOES = 1, 2, 3, 4
PLAIN = DrawnSettings(
    seed=6,
    train_persons=12,
    validation_persons=0,
    test_persons=0,
    num_cameras=4,
    cameras_per_person=(2, 3),
    images_per_camera=(2, 3),
    twins=0.0,
    twin_changes=2,
    camera_strength=0.0,
    camera_blur=0.0,
    camera_noise=0.0,
    view_spread=1.0,
    occlusion=0.0,
    misalignment=0.0,
    pedestrians_behind=0.0,
    frames=0,
    fresh_scenes=0,
    camera_seed=1,
)
KNOBS = ("postures", "cut_off", "half_hidden", "small_twins")
PROP = np.array((120, 80, 50), np.float32)


def pictures(settings: DrawnSettings, count: int = 48) -> list:
    keys = [(person, camera) for person in range(12) for camera in range(4)]
    return [draw_picture(settings, "train", person, camera, 0) for person, camera in keys[:count]]


def people(count: int = 6) -> list:
    return [draw_identity(np.random.default_rng(number)) for number in range(count)]


def length(a: tuple, b: tuple) -> float:
    return math.dist(a, b)


# ---- settings


@pytest.mark.parametrize("knob", KNOBS)
def test_a_knob_is_part_of_what_a_data_set_is_known_by_only_where_it_is_on(knob):
    assert knob not in PLAIN.written()
    assert replace(PLAIN, **{knob: 0.5}).written() == {**PLAIN.written(), knob: 0.5}


@pytest.mark.parametrize("knob", KNOBS)
@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_a_share_outside_of_0_to_1_is_refused_by_name(knob, value):
    with pytest.raises(ValueError, match=knob):
        replace(PLAIN, **{knob: value})


@pytest.mark.parametrize("knob", ["postures", "cut_off", "half_hidden"])
def test_a_share_of_a_half_leaves_the_other_pictures_as_they_were_to_the_byte(knob):
    plain, changed = pictures(PLAIN), pictures(replace(PLAIN, **{knob: 0.5}))
    differ = np.mean([a.jpeg != b.jpeg for a, b in zip(plain, changed, strict=True)])
    assert 0.25 < differ < 0.75
    assert all(a.jpeg != b.jpeg for a, b in zip(plain, pictures(replace(PLAIN, **{knob: 1.0})), strict=True))


# ---- postures


@pytest.mark.parametrize("kind", KINDS)
def test_limbs_keep_their_lengths_whatever_the_posture(kind):
    for number, who in enumerate(people()):
        for turn in range(8):
            posture = take_posture(kind, who, view=0.8 * turn, phase=0.7 * turn + number)
            for limb in posture.legs:
                hip, knee, ankle = limb.joints
                assert length(hip, knee) == pytest.approx(0.225 - 0.4 * who.body.legs, abs=0.02)
                assert length(knee, ankle) == pytest.approx(0.225 - 0.6 * who.body.legs, abs=0.02)
            for limb in posture.arms:
                shoulder, elbow, hand = limb.joints
                assert length(shoulder, elbow) == pytest.approx(UPPER_ARM, abs=0.03)
                assert length(elbow, hand) == pytest.approx(FOREARM, abs=0.03)


@pytest.mark.parametrize("kind", KINDS)
def test_the_trunk_keeps_its_length_and_leans_forwards_by_the_angle(kind):
    posture = take_posture(kind, people(1)[0], view=0.3, phase=1.0)
    hip, neck = posture.trunk(0, posture.hip, 0), posture.trunk(0, SHOULDER, 0)
    assert length(hip, neck) == pytest.approx(posture.hip - SHOULDER)
    assert hip == pytest.approx((0, posture.hip_y, posture.hip_z))
    assert math.atan2(neck[2] - hip[2], hip[1] - neck[1]) == pytest.approx(posture.lean)


def test_who_sits_has_level_thighs_and_shins_that_stand():
    for who in people():
        posture = take_posture("sit", who, view=1.0, phase=0.4)
        for limb in posture.legs:
            hip, knee, ankle = limb.joints
            assert abs(hip[1] - knee[1]) < 0.2 * abs(hip[2] - knee[2])
            assert abs(knee[2] - ankle[2]) < 0.4 * abs(knee[1] - ankle[1])
            assert ankle[1] == pytest.approx(0.945, abs=0.03)


def test_who_rides_has_the_hands_on_the_bars_and_feet_that_go_round_opposite_each_other():
    who = people(1)[0]
    seen = []
    for phase in np.linspace(0, 2 * math.pi, 9):
        posture = take_posture("cycle", who, view=1.0, phase=float(phase))
        assert all(limb.joints[2][1] == pytest.approx(BARS_Y, abs=0.02) for limb in posture.arms)
        left, right = (limb.joints[2] for limb in sorted(posture.legs, key=lambda limb: limb.side))
        assert 0.5 * (left[1] + right[1]) == pytest.approx(PEDALS_Y - 0.04)
        assert math.hypot(left[1] - right[1], left[2] - right[2]) == pytest.approx(2 * CRANK)
        seen.append(left[1])
    assert max(seen) - min(seen) == pytest.approx(2 * CRANK)


def test_who_bends_seen_from_the_side_has_the_head_beside_the_trunk_and_before_the_hips():
    for view in (0.5 * math.pi, -0.5 * math.pi):
        mask = painted("bend", people(1)[0], view, 0.8, 120).parts_HW
        rows = {part: np.argwhere(mask == part).mean(0) for part in (HEAD, TORSO, LEGS)}
        assert rows[HEAD][0] > np.argwhere(mask == TORSO)[:, 0].min()
        assert math.copysign(1, rows[HEAD][1] - rows[LEGS][1]) == math.copysign(1, math.sin(view))
        assert rows[LEGS][0] > rows[TORSO][0]


def painted(kind: str, who, view: float, phase: float, shade: float, prop_rgb: np.ndarray = PROP) -> Canvas:
    posture = take_posture(kind, who, view=view, phase=phase)
    place = fit_posture(posture, top=4, height=120, centre=32, width=56)
    canvas = Canvas(np.full((128, 64, 3), shade, np.float32))
    draw_posed(canvas, who, place, posture, light=0.1, prop_rgb=prop_rgb)
    return canvas


@pytest.mark.parametrize("kind", KINDS)
def test_the_mask_of_a_posture_is_covered_and_holds_head_torso_and_legs(kind):
    for number, who in enumerate(people()):
        dark, bright = (painted(kind, who, 0.9 * number, 1.1 * number, shade) for shade in (0, 255))
        assert (dark.parts_HW == bright.parts_HW).all()
        cover = 1 - (bright.image_HW3 - dark.image_HW3).mean(2) / 255
        assert cover[dark.parts_HW > 0].min() > 0.5
        assert {HEAD, TORSO, LEGS} <= set(np.unique(dark.parts_HW).tolist())
        assert 0.1 < (dark.parts_HW > 0).mean() < 0.6


@pytest.mark.parametrize("kind", ["sit", "cycle"])
def test_the_seat_and_the_bicycle_are_no_part_of_the_person(kind):
    for view in (0.0, 0.5 * math.pi, math.pi):
        brown, violet = (
            painted(kind, people(1)[0], view, 0.3, 255, np.array(rgb, np.float32))
            for rgb in ((120, 80, 50), (160, 20, 200))
        )
        prop = np.abs(brown.image_HW3 - violet.image_HW3).max(2) > 100
        assert prop.sum() > 15
        assert (brown.parts_HW[prop] == 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_posture_fills_its_box_and_stands_on_its_lower_edge(kind):
    for number, who in enumerate(people()):
        mask = painted(kind, who, 0.9 * number, 1.1 * number, 200).parts_HW > 0
        rows = np.flatnonzero(mask.any(1))
        assert 112 < rows[-1] < 128
        assert rows[-1] - rows[0] > 70
        assert np.flatnonzero(mask.any(0)).size > 20


def test_all_postures_occur_and_a_visit_keeps_its_posture():
    shots = replace(PLAIN, postures=1.0)
    heads = []
    for person in range(12):
        for camera in range(4):
            mask = draw_picture(shots, "train", person, camera, 0).mask
            heads.append(np.argwhere(mask == HEAD)[:, 0].mean() if (mask == HEAD).any() else np.nan)
    walking = [np.argwhere(shot.mask == HEAD)[:, 0].mean() for shot in pictures(PLAIN)]
    assert np.nanstd(heads) > 2 * np.std(walking)
    one, other, elsewhere = (draw_picture(shots, "train", 0, 0, number).mask > 0 for number in (0, 1, 0))
    assert (one == elsewhere).all()
    assert (one & other).sum() / (one | other).sum() > 0.4


def test_an_unknown_posture_is_refused():
    with pytest.raises(ValueError, match="sit, bend, cycle"):
        take_posture("fly", people(1)[0], view=0, phase=0)


# ---- boxes


def test_a_cut_box_lacks_the_legs_or_the_head():
    whole, cut = pictures(PLAIN), pictures(replace(PLAIN, cut_off=1.0))
    assert all({HEAD, SHOES} <= set(np.unique(shot.mask)) for shot in whole)
    legless = [not (shot.mask == SHOES).any() and (shot.mask[-1] > 0).any() for shot in cut]
    headless = [(shot.mask[0] > 0).any() for shot in cut]
    assert all(a != b for a, b in zip(legless, headless, strict=True))
    assert 0.4 < np.mean(legless) < 0.9
    assert [shot.view for shot in whole] == [shot.view for shot in cut]


@pytest.mark.parametrize("kind", KINDS)
def test_who_is_posed_in_a_cut_box_lacks_the_legs_or_the_head_too(kind):
    for who in people():
        posture = take_posture(kind, who, view=0.8, phase=0.5)
        left, right, upper, lower = posture.bounds()
        box = {"top": 3.0, "height": 230.0, "centre": 32.0, "width": 60.0}
        legs = fit_posture(posture, **box, cut="legs")
        assert legs.top + legs.height * upper == pytest.approx(3)
        assert legs.top + legs.height * lower > 128 + 20
        head = fit_posture(posture, **{**box, "top": -60.0, "height": 180.0}, cut="head")
        assert head.top + head.height * upper == pytest.approx(-60)
        assert head.top + head.height * lower == pytest.approx(120)
        for place in (legs, head):
            assert place.x + place.wide * 0.5 * (left + right) == pytest.approx(32)


# ---- what is hidden


def test_what_stands_in_front_hides_a_third_to_a_half_and_adds_nothing():
    plain, hidden = pictures(PLAIN), pictures(replace(PLAIN, half_hidden=1.0))
    shares = []
    for a, b in zip(plain, hidden, strict=True):
        assert b.occluded
        assert not a.occluded
        assert (b.mask[b.mask != a.mask] == 0).all()
        shares.append(1 - (b.mask > 0).sum() / (a.mask > 0).sum())
    inside = [0.3 < share < 0.54 for share in shares]
    assert np.mean(inside) > 0.9
    assert 0.36 < np.mean(shares) < 0.47


def test_what_is_hidden_lies_above_below_and_beside():
    plain, hidden = pictures(PLAIN), pictures(replace(PLAIN, half_hidden=1.0))
    gone = [(a.mask > 0) & (b.mask == 0) for a, b in zip(plain, hidden, strict=True)]
    rows = np.array([np.argwhere(lost)[:, 0].mean() for lost in gone])
    assert (rows > 80).any()
    assert (rows < 50).any()
    assert ((rows > 55) & (rows < 72)).any()


# ---- twins


def test_small_twins_differ_from_their_model_in_one_small_thing():
    found = population(replace(PLAIN, train_persons=60, small_twins=0.6), "train")
    pairs = zip(found.identities, found.models, strict=True)
    twins = [(twin, found.identities[model]) for twin, model in pairs if model is not None]
    assert 24 < len(twins) < 48
    seen = set()
    for twin, model in twins:
        differ = [group for group in GROUPS if getattr(twin, group) != getattr(model, group)]
        assert len(differ) == 1
        seen.update(differ)
    assert seen == set(SMALL_GROUPS)


def test_small_twins_leave_the_other_persons_as_they_were():
    before = population(replace(PLAIN, twins=0.0), "train")
    after = population(replace(PLAIN, twins=0.0, small_twins=0.4), "train")
    assert before.visits == after.visits
    for one, other, model in zip(before.identities, after.identities, after.models, strict=True):
        assert (one == other) == (model is None)


# ---- the shape that leans


def test_an_upright_tube_is_a_profile():
    halves, knots = [3.0, 11.0, 8.0, 14.0], [20.0, 40.0, 70.0, 90.0]
    tube, profile = (Canvas(np.zeros((128, 64, 3), np.float32)) for _ in range(2))

    def paint(u, v):
        return 100 + np.stack(np.broadcast_arrays(40 * u, 60 * v, u * v), -1)

    profile.profile(knots, [30.0] * 4, halves, paint, TORSO, 0.2)
    tube.tube((30.0, 20.0), (30.0, 90.0), [(knot - 20) / 70 for knot in knots], halves, paint, TORSO, 0.2)
    assert (tube.parts_HW == profile.parts_HW).all()
    assert np.abs(tube.image_HW3 - profile.image_HW3).max() < 0.01


def test_a_tube_on_its_side_is_the_upright_one_turned():
    def painted_tube(end: tuple[float, float]) -> np.ndarray:
        canvas = Canvas(np.zeros((128, 64, 3), np.float32))
        canvas.tube((32.0, 60.0), end, [0.0, 1.0], [4.0, 9.0], np.full(3, 200, np.float32), TORSO)
        return canvas.parts_HW[28:92] > 0  # a square about the start

    assert (np.rot90(painted_tube((32.0, 84.0))) == painted_tube((56.0, 60.0))).all()


# ---- the sheet


def test_the_sheet_shows_the_knobs(tmp_path, monkeypatch):
    sheets = []
    for number, words in enumerate(([], ["--postures", "1", "--half-hidden", "1"])):
        path = tmp_path / f"{number}.png"
        told = ["--sheet", str(path), "--persons", "2", "--pictures", "1", "--cameras", "3", "--scale", "1", *words]
        monkeypatch.setattr(sys, "argv", ["drawn", *told])
        main()
        sheets.append(np.asarray(Image.open(path)))
    assert sheets[0].shape == sheets[1].shape == (2 * (128 + 4), 3 * (64 + 4), 3)
    assert (sheets[0] != sheets[1]).any(2).mean() > 0.3
