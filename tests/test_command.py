"""The command line that jobs share: options, help, and errors without tracebacks."""

from __future__ import annotations

import argparse
import errno
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from reidray import settings_io
from reidray.command import Command, parse
from reidray.commands import evaluate
from reidray.config import Settings
from reidray.storage.runfolder import RunFolder
from reidray.user_errors import user_errors


def parsed(*words: str, **more) -> Command:
    return parse(words, prog="reidray train", description="Trains without labels.", **more)


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]):
    def run(*words: str, **more) -> str:
        with pytest.raises(SystemExit) as left:
            parsed(*words, **more)
        assert left.value.code == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        return err.removeprefix("error: ").rstrip("\n")

    return run


def test_no_words_give_the_defaults():
    command = parsed()
    assert command.settings == Settings()
    assert command.config is None


def test_options_and_settings_mix_in_any_order(tmp_path: Path):
    path = tmp_path / "c.yaml"
    path.write_text("train: {epochs: 3, steps: 9}")
    command = parsed("train.epochs=5", "--workers", "1", "data.seed=7", "--config", str(path), "--run.threads=2")
    assert command.config == path
    assert (command.settings.train.epochs, command.settings.train.steps) == (5, 9)
    assert (command.settings.run.workers, command.settings.run.threads, command.settings.data.seed) == (1, 2, 7)


def test_a_job_adds_its_own_options_and_gets_only_them():
    def extra(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("images", type=Path, help="folder")
        parser.add_argument("--out", type=Path, default=Path("x"))

    command = parsed("folder", "--out", "y", "train.epochs=3", extra=extra)
    assert vars(command.options) == {"images": Path("folder"), "out": Path("y")}
    assert command.settings.train.epochs == 3


def test_mistakes_are_refused_in_one_sentence_with_status_2(refused, tmp_path: Path):
    assert refused("train.epoch=3") == "unknown setting train.epoch: did you mean train.epochs? (see --help)"
    assert refused("--train.epoch=3") == "unknown setting train.epoch: did you mean train.epochs? (see --help)"
    assert refused("train.epochs=x") == "train.epochs must be a whole number >= 1, got 'x'"
    assert refused("--workers", "many") == "run.workers must be a whole number >= 0 or null, got 'many'"
    assert "there is no such file, and no config of this name comes" in refused("--config", str(tmp_path / "no.yaml"))
    assert refused("--config", "scwm_foldr").endswith("did you mean scwm_folder, small_folder or osnet_folder?")
    assert refused("--config", "a", "--config", "b").startswith("--config is given twice")
    assert refused("--wrokers=3") == "unknown option --wrokers=3: did you mean run.workers=VALUE? (see --help)"
    assert refused("--resume", "x").startswith("unknown option --resume")
    assert refused("--epochs", "3") == "unknown option --epochs: did you mean train.epochs=VALUE? (see --help)"
    assert refused("--learning-rate=1") == (
        "unknown option --learning-rate=1: did you mean train.learning_rate=VALUE? (see --help)"
    )
    assert refused("train.epochs", "3").startswith("expected section.name=value, got 'train.epochs'")
    assert "expected one argument" in refused("--config")


def test_a_job_without_settings_knows_only_its_own_options(refused, capsys: pytest.CaptureFixture[str]):
    def extra(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--checkpoint", metavar="DIR", type=Path, required=True, help="what to evaluate")

    command = parsed("--checkpoint", "x", extra=extra, settings=False)
    assert vars(command.options) == {"checkpoint": Path("x")}
    assert command.settings == Settings()
    assert refused("--checkpoint", "x", "train.epochs=3", extra=extra, settings=False).startswith("unknown option")
    assert refused("--checkpoint", "x", "--workers", "3", extra=extra, settings=False).startswith("unknown option")
    assert "--checkpoint" in refused(extra=extra, settings=False)
    with pytest.raises(SystemExit):
        parsed("--help", extra=extra, settings=False)
    text = capsys.readouterr().out
    assert text.startswith("usage: reidray train --checkpoint DIR [options]\n")
    assert "what to evaluate" in text
    assert "train.epochs" not in text


def test_print_config_prints_what_can_be_fed_back(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    words = ("train.epochs=3", "--workers", "0", "data.drawn.twins=0.5")
    with pytest.raises(SystemExit) as left:
        parsed(*words, "--print-config")
    assert left.value.code == 0
    path = tmp_path / "printed.yaml"
    path.write_text(capsys.readouterr().out)
    assert parsed("--config", str(path)).settings == parsed(*words).settings


@pytest.fixture
def helped(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    def run(columns: int, *more: str) -> str:
        monkeypatch.setenv("COLUMNS", str(columns))
        with pytest.raises(SystemExit) as left:
            parsed("--help", *more, resume=True)
        assert left.value.code == 0
        return capsys.readouterr().out

    return run


def test_help_shows_what_people_change_most_and_says_where_the_rest_is(helped):
    text = helped(100)
    assert text.count("\n") < 60
    for name in ("data.dataset", "method.eps", "train.epochs", "model.backbone", "run.dir"):
        assert f" {name} " in text
    assert "method.k1" not in text
    assert "--help all" in text


def test_a_path_is_the_data_and_a_name_is_a_config_that_comes_with_reidray(refused, tmp_path: Path):
    (tmp_path / "crops").mkdir()
    place = str(tmp_path / "crops")
    command = parsed(place, "--config", "scwm_folder", "train.epochs=3", data=True)
    assert (command.settings.data.root, command.settings.data.dataset) == (place, "folder")
    assert (command.settings.model.backbone, command.settings.train.epochs) == ("resnet50", 3)
    assert command.config is not None
    assert command.config.name == "scwm_folder.yaml"
    assert refused(place, str(tmp_path), data=True).startswith("expected one folder or list of images, got 2")
    assert refused(place, f"data.root={place}", data=True).startswith("the data are given twice")
    assert refused("./nothing", data=True).endswith("expected a folder or a list of images, but nothing is there")


def test_values_beneath_lie_under_those_of_the_file_and_of_the_words(tmp_path: Path):
    path = tmp_path / "c.yaml"
    path.write_text("train: {epochs: 3}")

    def beneath(_: argparse.Namespace, over: Sequence[settings_io.Layer], config: bool) -> list[settings_io.Layer]:
        assert config
        assert [dict(layer.values) for layer in over] == [{"train.epochs": 3}, {"train.steps": 4}]
        return [settings_io.from_tree({"train.epochs": 9, "train.steps": 9, "method.k2": 5}, "")]

    settings = parsed("--config", str(path), "train.steps=4", beneath=beneath).settings
    assert (settings.train.epochs, settings.train.steps, settings.method.k2) == (3, 4, 5)


def test_help_lists_every_setting_with_default_unit_and_meaning(helped):
    text = " ".join(helped(100, "all").split())
    for setting in settings_io.known().values():
        assert f" {setting.name} " in text
        assert setting.unit in text
        assert " ".join(setting.meaning.split()) in text
    meaning = "epochs; most methods label all images anew in each, then train [epochs; whole number >= 1]"
    assert f"train.epochs {Settings().train.epochs} {meaning}" in text
    assert "augment.erase_area [0.02, 0.3] least" in text
    assert "run.workers null" in text
    assert "method.prefer_other_cameras true" in text
    for option in ("--config FILE", "--workers N", "--resume RUN_DIR", "--print-config", "examples:"):
        assert option in text


@pytest.mark.parametrize("columns", [50, 60, 80, 100, 160])
def test_help_keeps_to_the_width_of_the_terminal(helped, columns: int):
    listed = helped(columns, "all").split("options:\n")[1]  # the examples stay in one piece, to be copied
    assert max(len(line) for line in listed.splitlines()) <= columns
    names = re.findall(r"^  ([a-z_]+\.[a-z_.0-9]+) ", listed, flags=re.MULTILINE)
    assert names == list(settings_io.known())


def test_resume_takes_the_settings_of_its_run(tmp_path: Path):
    earlier = parsed("train.epochs=3", "train.seed=5", "run.threads=2").settings
    folder = RunFolder.create(tmp_path / "run", earlier)
    command = parsed(
        "--resume", str(folder.path), "--workers", "1", "train.epochs=9", "run.keep_best=camera_cycle", resume=True
    )
    assert command.options.resume == folder.path
    assert (command.settings.train.seed, command.settings.train.epochs) == (5, 9)
    assert (command.settings.run.threads, command.settings.run.workers) == (2, 1)
    assert command.settings.run.dir == str(folder.path)


def test_resume_refuses_another_setting_another_file_and_no_run(refused, tmp_path: Path):
    folder = str(RunFolder.create(tmp_path / "run", Settings()).path)
    assert "train.seed cannot be changed" in refused("--resume", folder, "train.seed=1", "run.threads=2", resume=True)
    # what is wrong is that they are given at all, and not what they would be checked against
    for words in (["method.clusters_per_batch=10"], ["model.bn_group_size=7"], ["method.clusters_per_batch=many"]):
        sentence = refused("--resume", folder, *words, resume=True)
        assert sentence.startswith("--resume continues a run under its own settings: ")
        assert f"{words[0].split('=')[0]} cannot be changed" in sentence
    assert "must be" in refused("--resume", folder, "run.threads=many", resume=True)
    assert "did you mean train.seed" in refused("--resume", folder, "train.sed=1", resume=True)
    assert "leave --config out" in refused("--resume", folder, "--config", "x.yaml", resume=True)
    assert "no run folder" in refused("--resume", str(tmp_path), resume=True)


# --- errors of a job ---


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ValueError("images must be RGB;\n got 4 channels"), "images must be RGB; got 4 channels"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "a/b"), "a/b: no such file or directory"),
        (PermissionError(errno.EACCES, "Permission denied", "a/b"), "a/b: permission denied"),
        (OSError(errno.ENOSPC, "No space left on device"), "no space left on device"),
        (FileNotFoundError("the folder a holds no images"), "the folder a holds no images"),
    ],
)
def test_what_a_person_can_put_right_is_one_sentence(error: Exception, sentence: str, capsys):
    @user_errors()
    def main() -> None:
        raise error

    main.__wrapped__.__globals__["__name__"], kept = "__main__", main.__wrapped__.__globals__["__name__"]
    try:
        with pytest.raises(SystemExit) as left:
            main()
    finally:
        main.__wrapped__.__globals__["__name__"] = kept
    assert left.value.code == 2
    assert capsys.readouterr().err == f"error: {sentence}\n"


def test_an_error_from_elsewhere_says_how_to_see_more(capsys):
    with pytest.raises(SystemExit), user_errors():
        int("three")
    assert "REIDRAY_TRACEBACK=1" in capsys.readouterr().err


def test_an_actors_error_is_told_as_the_error_it_carries(capsys):
    class TaskError(RuntimeError):
        cause = ValueError("features of image 3 are not finite")

    with pytest.raises(SystemExit), user_errors():
        raise TaskError("a long remote traceback")
    assert capsys.readouterr().err == "error: features of image 3 are not finite\n"


@pytest.mark.parametrize("error", [RuntimeError("bug"), KeyError("bug"), ConnectionError("bug"), AssertionError("bug")])
def test_what_only_we_can_break_keeps_its_traceback(error: Exception):
    with pytest.raises(type(error)), user_errors():
        raise error


def test_the_traceback_is_there_when_asked_for(capsys, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("REIDRAY_TRACEBACK", "1")
    with pytest.raises(SystemExit), user_errors():
        raise ValueError("wrong")
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.endswith("error: wrong\n")


def test_a_job_that_works_is_left_alone():
    @user_errors()
    def main() -> int:
        return 3

    assert main() == 3


def test_an_interruption_is_a_word_and_status_130(capsys):
    with pytest.raises(SystemExit) as ended, user_errors():
        raise KeyboardInterrupt
    assert ended.value.code == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_several_data_sets_are_a_table_that_an_error_does_not_lose(monkeypatch, capsys):
    figures = {"mAP": 36.25, "rank1": 100.0, "rank5": 100.0, "rank10": 100.0, "mINP": 1.0, "num_valid_queries": 15}

    def measured(network, settings, place, *, data, given):
        if data == "nothing":
            raise ValueError("nothing there")
        return figures | {"num_queries": 1500}

    monkeypatch.setattr(evaluate, "evaluated", measured)
    monkeypatch.setattr(evaluate, "load_model", lambda place: (None, None))
    evaluate.main(["--run", "run", "one", "another"], "reidray evaluate")
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split() == ["in", "percent", "mAP", "rank1", "rank5", "rank10", "mINP", "queries"]
    assert [row.split() for row in rows] == [
        [name, "36.25", "100.00", "100.00", "100.00", "1.00", "15", "of", "1,500"] for name in ("one", "another")
    ]
    assert {len(row) for row in rows} == {len(header)}
    with pytest.raises(ValueError, match="nothing there"):
        evaluate.main(["--run", "run", "one", "nothing"], "reidray evaluate")
    assert capsys.readouterr().out.splitlines()[1:] == [rows[0]]
