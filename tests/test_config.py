"""Settings from text: YAML files, words of the command line, and the sentences that refuse what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from reidray import settings_io
from reidray.config import Settings
from reidray.features import BACKBONES
from reidray.methods import METHODS
from reidray.section import epochs_of


def settings_of(*words: str) -> Settings:
    return settings_io.settings_from(settings_io.from_words(words))


def refusal(*words: str) -> str:
    with pytest.raises(ValueError) as refused:  # noqa: PT011
        settings_of(*words)
    return one_sentence(refused.value)


def one_sentence(error: Exception) -> str:
    assert "\n" not in str(error)
    return str(error)


@pytest.fixture
def written(tmp_path: Path):
    def write(text: str | bytes) -> Path:
        path = tmp_path / "settings.yaml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write


def file_refusal(path: Path) -> str:
    with pytest.raises(ValueError, match=str(path)) as refused:
        settings_io.load(path)
    return one_sentence(refused.value)


def leaves(tree: dict, prefix: str = "") -> set[str]:
    names = set()
    for key, value in tree.items():
        names |= leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}"}
    return names


def test_every_setting_has_a_meaning_and_is_known_by_its_dotted_name():
    assert set(settings_io.known()) == leaves(Settings().model_dump())
    assert all(setting.meaning and setting.expected for setting in settings_io.known().values())


def test_every_section_says_what_it_is_about():
    for name, about, settings in settings_io.sections():
        assert about, name
        assert settings, name


def test_nothing_given_gives_the_defaults():
    assert settings_of() == Settings()


def test_words_reach_nested_sections_and_every_type():
    settings = settings_of(
        "data.drawn.twins=0.3",
        "data.drawn.cameras_per_person=[2,4]",
        "train.learning_rate=1e-3",
        "train.weight_decay=0",
        "run.workers=null",
        "method.prefer_other_cameras=false",
        "scwm.space=off",
    )
    assert settings.data.drawn.twins == 0.3
    assert settings.data.drawn.cameras_per_person == (2, 4)
    assert settings.train.learning_rate == 1e-3
    assert settings.train.weight_decay == 0.0
    assert settings.run.workers is None
    assert settings.method.prefer_other_cameras is False
    assert settings.scwm.space == "off"  # a word, not YAML 1.1's truth value


@pytest.mark.parametrize("text", ["1e-3", "1E-3", "1.0e-3", ".001", "0.001", "+1e-3"])
def test_numbers_are_numbers_however_they_are_written(text: str):
    assert settings_of(f"train.learning_rate={text}").train.learning_rate == pytest.approx(1e-3)


def test_a_text_may_look_like_a_number_on_the_command_line():
    assert settings_of("data.root=2024").data.root == "2024"
    assert settings_of("run.dir=1e-3").run.dir == "1e-3"
    assert settings_of("run.dir=2024-01-01").run.dir == "2024-01-01"


def test_the_last_word_wins_and_words_win_over_the_file(written):
    path = written("train: {epochs: 3, steps: 7}")
    settings = settings_io.settings_from(
        [settings_io.from_file(path), *settings_io.from_words(["train.epochs=4", "train.epochs=5"])]
    )
    assert (settings.train.epochs, settings.train.steps) == (5, 7)


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("train.epoch", "train.epochs"),
        ("train.lr", "train.lr_every"),
        ("epochs", "train.epochs"),
        ("data.twins", "data.drawn.twins"),
        ("drawn.twins", "data.drawn.twins"),
        ("method.num_parts", "scwm.num_parts"),
        ("model.backbones", "model.backbone"),
        ("run.worker", "run.workers"),
        ("Train.Epochs", "train.epochs"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_known_one(wrong: str, meant: str, written):
    assert refusal(f"{wrong}=3") == f"unknown setting {wrong}: did you mean {meant}? (see --help)"
    nested: object = 3
    for key in reversed(wrong.split(".")):
        nested = {key: nested}
    assert f"unknown setting {wrong}: did you mean {meant}? (see --help)" in file_refusal(
        written(yaml.safe_dump(nested))
    )


def test_a_key_like_no_other_points_to_the_help():
    assert refusal("qqqqqq=1") == "unknown setting qqqqqq: --help lists every setting"


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("train.epochs=ten", "train.epochs must be a whole number >= 1, got 'ten'"),
        ("train.epochs=0", "train.epochs must be a whole number >= 1, got 0"),
        ("train.epochs=1.5", "train.epochs must be a whole number >= 1, got 1.5"),
        ("train.epochs=true", "train.epochs must be a whole number >= 1, got true"),
        ("train.epochs='3'", "train.epochs must be a whole number >= 1, got '3'"),
        ("train.epochs=null", "train.epochs must be a whole number >= 1, got null"),
        ("train.epochs={a: 1}", "train.epochs must be a whole number >= 1, got {'a': 1}"),
        ("train.learning_rate=.nan", "train.learning_rate must be a number > 0, got nan"),
        ("train.learning_rate=.inf", "train.learning_rate must be a number > 0, got inf"),
        ("method.eps=1", "method.eps must be a number > 0 and < 1, got 1"),
        ("augment.flip=1.5", "augment.flip must be a number from 0 to 1, got 1.5"),
        ("augment.erase_area=[0.1]", "augment.erase_area must be a list of 2, each a number from 0 to 1, got [0.1]"),
        ("augment.erase_area=[0, 2]", "augment.erase_area must be a list of 2, each a number from 0 to 1, got [0, 2]"),
        ("model.backbone=vit", f"model.backbone must be one of {', '.join(BACKBONES)} or timm:NAME, got 'vit'"),
        ("scwm.foreground_classes=4", "scwm.foreground_classes must be one of 2, 3, got 4"),
        ("scwm.log_magnitude=yes", "scwm.log_magnitude must be true or false, got 'yes'"),
        ("run.workers=-1", "run.workers must be a whole number >= 0 or null, got -1"),
        ("train=3", "train is a section, not a setting: expected train.seed=value or the like, got 3"),
    ],
)
def test_a_wrong_value_is_refused_with_setting_expected_and_got(word: str, sentence: str):
    assert refusal(word) == sentence


def test_a_wrong_value_in_a_file_names_the_file(written):
    path = written("train: {epochs: ten}")
    assert file_refusal(path) == f"{path}: train.epochs must be a whole number >= 1, got 'ten'"


def test_every_trunk_is_a_value_and_so_is_a_name_of_timm():
    for name in (*BACKBONES, "timm:resnet10t.c3_in1k"):
        (word,) = settings_io.from_words([f"model.backbone={name}"])
        assert settings_io.settings_from([word, *settings_io.from_words(["model.weights=none"])]).model.backbone == name
    assert refusal("model.backbone=timm:a/b").endswith("or timm:NAME, got 'timm:a/b'")


def test_an_embedding_layer_is_kept_only_where_there_is_one_and_a_method_has_a_place_for_it():
    keep, osnet = "model.embedding_layer=keep", ("model.backbone=osnet_x0_25", "model.weights=none")
    assert "set model.embedding_layer=drop" in refusal(keep)
    for method in ("buc", "ihc"):
        assert f"no place in method.name={method}" in refusal(keep, *osnet, f"method.name={method}")
    assert "no ImageNet weights for model.backbone=osnet_x0_25: use none or a file" in refusal(
        osnet[0], "model.weights=imagenet"
    )


def test_settings_that_do_not_fit_together_are_refused_in_words():
    assert refusal("model.bn_group_size=7").startswith("model.bn_group_size=7 must divide the batch of 64 images")
    assert "needs data.root" in refusal("data.dataset=market1501")


def test_classifiers_with_a_row_a_cluster_and_shared_rows_are_refused_with_both_ways_out():
    for weight in ("scwm.global_identity_weight=1", "scwm.part_identity_weight=0.5"):
        said = refusal("run.replica=sharded", weight)
        assert "set scwm.global_identity_weight=0 and scwm.part_identity_weight=0, or run.replica=replicated" in said
        assert settings_of("run.replica=auto", weight).needs_all_rows
        settings_of("run.replica=sharded", weight, "method.name=cluster_contrast", "method.update=average")
    assert settings_of("run.replica=sharded").needs_all_rows is None
    assert "run.replica=replicated" in refusal("run.replica=sharded", "method.name=pplr")


def test_where_the_replica_lies_is_no_part_of_what_a_result_depends_on():
    assert settings_of("run.replica=sharded", "run.replica_mb=1").hash() == Settings().hash()


# ---- the sections of methods


def test_every_method_with_settings_of_its_own_has_a_section_of_its_name():
    sections = {name for name, entry in METHODS.items() if entry.section is not None}
    assert {"scwm", "aac", "pplr"} <= sections
    for name in sections:
        assert type(getattr(Settings(), name)) is METHODS[name].section
        assert getattr(Settings(), name) == METHODS[name].section()
    assert not hasattr(Settings(), "cluster_contrast")
    assert sections <= {name for name, _, _ in settings_io.sections()}


@pytest.mark.parametrize("name", METHODS)
def test_the_own_section_is_that_of_the_chosen_method(name: str):
    settings = settings_of(f"method.name={name}")
    section = METHODS[name].section
    assert settings.own is (None if section is None else getattr(settings, name))


def test_the_name_of_a_method_is_one_of_the_table():
    listed = ", ".join(METHODS)
    assert refusal("method.name=spcl") == f"method.name must be one of {listed}, got 'spcl'"


def test_only_the_chosen_methods_section_is_checked_against_the_run():
    weights = ["global_memory", "part_memory", "separation", "parsing", "diversity", "global_identity", "part_identity"]
    words = [f"scwm.{name}_weight=0" for name in weights]
    assert "all loss weights of the section scwm are 0" in refusal(*words)
    settings_of(*words, "method.name=cluster_contrast")


def test_weighted_updates_need_a_method_that_weighs_images():
    for name, entry in METHODS.items():
        words = [f"method.name={name}", "method.update=weighted"]
        if entry.weighs_images:
            settings_of(*words)
        else:
            assert refusal(*words) == "method.update=weighted needs the difficulties of method.name=scwm"


@pytest.mark.parametrize("name", METHODS)
def test_the_hash_heeds_the_chosen_methods_section_and_no_other(name: str):
    plain = settings_of(f"method.name={name}").hash()
    changes = {"scwm": "scwm.num_parts=5", "aac": "aac.least=7", "pplr": "pplr.num_stripes=5"}
    for other, word in changes.items():
        assert (settings_of(f"method.name={name}", word).hash() == plain) is (other != name)


def test_settings_without_effect_are_named():
    assert Settings().without_effect() == []
    tree = {
        "method": {"name": "pplr", "update": "hardest", "eps": 0.6},
        "pplr": {"camera_negatives": 3},
        "scwm": {"num_parts": 5},
    }
    assert Settings(**tree).without_effect() == ["method.update=hardest", "pplr.camera_negatives=3", "the section scwm"]
    tree["pplr"]["camera_weight"] = 0.5
    assert Settings(**tree).without_effect() == ["method.update=hardest", "the section scwm"]
    truth = Settings(method={"name": "cluster_contrast", "labels": "ground_truth", "eps": 0.6})
    assert truth.without_effect() == ["method.eps=0.6"]
    assert Settings(scwm={"beta": 0.2, "linkage": "complete"}).without_effect() == ["scwm.beta=0.2"]
    stripes = Settings(scwm={"beta": 0.2, "global_identity_weight": 1.0, "linkage": "complete", "parts": "stripes"})
    assert stripes.without_effect() == ["scwm.linkage=complete"]


def test_splitting_that_never_begins_is_refused():
    with pytest.raises(ValueError, match=r"aac.start_epoch=12 is no epoch of train.epochs=12"):
        Settings(method={"name": "aac"}, aac={"start_epoch": 12})


def test_methods_do_not_share_a_hash():
    assert len({settings_of(f"method.name={name}").hash() for name in METHODS}) == len(METHODS)


# ---- words


@pytest.mark.parametrize("word", ["train.epochs", "=3", "3"])
def test_a_word_without_name_or_value_is_refused(word: str):
    assert refusal(word).startswith(f"expected section.name=value, got {word!r}")


def test_a_value_that_is_not_yaml_is_refused():
    assert refusal("train.epochs=[").startswith("train.epochs is not readable as YAML")
    assert refusal("train.seed=" + "9" * 5000).startswith("train.seed is not readable as YAML")
    assert refusal("train.epochs=!!python/object:os.system 1").startswith("train.epochs is not readable as YAML")


def test_a_file_may_be_empty_or_hold_empty_sections_and_dotted_keys(written):
    assert settings_io.load(written("")) == Settings()
    assert settings_io.load(written("# only a comment\n")) == Settings()
    assert settings_io.load(written("train:\ndata:\n  drawn:\n")) == Settings()
    assert settings_io.load(written("train.epochs: 3\ndata: {drawn.twins: 0.5}")).data.drawn.twins == 0.5


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("- 1\n- 2", "expected a mapping of sections"),
        ("just a sentence", "expected a mapping of sections"),
        ("train: {epochs: 3", "is not readable as YAML"),
        ("train: {epochs: 3, epochs: 3}", "'epochs' is given twice (line 1"),
        ("train: {epochs: 3}\ntrain: {steps: 2}", "'train' is given twice (line 2"),
        ("train: {epochs: 3}\ntrain.epochs: 4", "train.epochs is given twice"),
        ("a: &a [*a]", "unknown setting a"),
        ("train: {epochs: 2}\n---\ntrain: {}", "is not readable as YAML"),
        (b"\x89PNG\r\n\x1a\n\x00", "is not readable as YAML"),
        (b"\x00\x01", "is not readable as YAML"),
        ("train: {epochs: !!timestamp 2001-01-01}", "train.epochs must be a whole number"),
        ("data: {root: [[[[[[[[[[1]]]]]]]]]]}", "data.root must be a text or null"),
    ],
)
def test_a_damaged_file_is_refused_in_one_sentence(text: str | bytes, sentence: str, written):
    assert sentence in file_refusal(written(text))


def test_a_missing_file_or_a_folder_is_refused_in_one_sentence(tmp_path: Path):
    assert file_refusal(tmp_path / "none.yaml").endswith("cannot be read: no such file or directory")
    assert file_refusal(tmp_path).endswith("cannot be read: is a directory")


def test_the_printed_tree_reads_back_equal(written):
    settings = settings_of(
        "data.root=1e-3", "run.dir=off", "data.packed=2001-01-01", "model.weights=true", "train.learning_rate=1e-7",
        "data.drawn.cameras_per_person=[1,3]", "data.cache_dir=a: b # c",
    )  # fmt: skip
    text = settings_io.as_yaml(settings)
    assert settings_io.load(written(text)) == settings
    assert Settings.model_validate(yaml.safe_load(text)) == settings  # and PyYAML's own reading agrees
    assert settings_io.load(written(settings_io.as_yaml(Settings()))) == Settings()


def test_the_tree_is_frozen_all_the_way_down():
    def check(section: BaseModel) -> None:
        assert section.model_config["frozen"]
        for name in type(section).model_fields:
            value = getattr(section, name)
            assert not isinstance(value, list | dict | set)
            if isinstance(value, BaseModel):
                check(value)

    check(Settings())


def test_the_hash_ignores_where_things_lie_and_heeds_everything_else():
    plain = Settings().hash()
    assert settings_of("run.dir=x", "run.workers=1", "data.root=y", "data.cache_dir=z").hash() == plain
    assert settings_of("train.seed=1").hash() != plain
    assert settings_of("run.keep_best=camera_cycle").hash() != plain  # another network is reported
    assert settings_of("data.drawn.twins=0.5").hash() != plain


def test_relative_paths_are_resolved_and_urls_left_alone(tmp_path: Path):
    settings = settings_of("data.root=images", "data.packed=s3://bucket/x", "model.weights=w.safetensors").resolved(
        tmp_path
    )
    assert settings.data.root == str(tmp_path / "images")
    assert settings.data.packed == "s3://bucket/x"
    assert settings.model.weights == str(tmp_path / "w.safetensors")
    assert settings.data.cache_dir is None
    assert Settings().resolved(tmp_path).model.weights == "shipped"
    early = Settings.model_validate({"model": {"weights": "shipped_early"}})
    assert early.resolved(tmp_path).model.weights == "shipped_early"


@pytest.mark.parametrize(
    ("value", "epochs", "expected"),
    [
        (10, 12, 10),
        (0.33, 12, 4),
        (0.33, 60, 20),
        (0.08, 60, 5),
        (0.08, 12, 1),
        (0.01, 12, 1),
        (0, 12, 0),
        (0.99, 3, 3),
    ],
)
def test_epochs_are_a_number_or_a_share_of_the_run(value, epochs, expected):
    assert epochs_of(value, epochs) == expected


def test_the_defaults_of_a_paper_s_length_are_those_of_the_papers():
    """SCWM: gamma falls for 20 of 60 epochs, eq. 13 begins at epoch 5; PPLR's public code: agreement from 5 of 50."""
    settings = Settings()
    assert epochs_of(settings.scwm.mask_momentum_epochs, 60) == 20
    assert epochs_of(settings.scwm.part_refinement_from, 60) == 5
    assert epochs_of(settings.pplr.agreement_from, 50) == 5


@pytest.mark.parametrize("wrong", [1.5, -1, 0, "many"])
def test_a_share_of_the_epochs_is_below_1(wrong):
    with pytest.raises(ValueError, match=r"lr_every"):
        Settings(train={"lr_every": wrong})


def test_a_run_keeps_the_epochs_that_its_shares_were_in_the_beginning():
    begun = Settings(train={"epochs": 12, "lr_every": 0.5}).with_counted_epochs()
    assert (begun.train.lr_every, begun.scwm.mask_momentum_epochs, begun.scwm.part_refinement_from) == (6, 4, 0.08)
    assert begun.pplr.agreement_from == 0.1  # of another method
    longer = begun.model_copy(update={"train": begun.train.model_copy(update={"epochs": 24})})
    assert longer.with_counted_epochs().train.lr_every == 6
    assert begun.without_effect() == []


def test_what_images_do_not_read_does_not_change_the_hash():
    plain = Settings()
    for data in ({"frames": 3}, {"mars_gallery": "without_queries"}):
        other = Settings(data=data)
        assert other.hash() == plain.hash()
        assert [text.split("=")[0] for text in other.without_effect()] == [f"data.{next(iter(data))}"]
    tracklets = Settings(data={"drawn": {"frames": 4}})
    assert Settings(data={"drawn": {"frames": 4}, "frames": 3}).hash() != tracklets.hash() != plain.hash()
    assert Settings(data={"drawn": {"frames": 4}, "frames": 3}).without_effect() == []
