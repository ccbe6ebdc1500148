"""Exported files run without reidray and give what embedding gives; a file that does not is never left behind."""

import io
import json
import re
import subprocess
import sys
import zipfile
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from reidray.commands.export import main
from reidray.config import Settings
from reidray.data import folder
from reidray.export import EmbeddingGraph, export_model, images_to_compare
from reidray.export.compare import compared
from reidray.export.images import drawn_images
from reidray.inference import load
from reidray.launch.inference import embed
from reidray.methods import METHODS, make_method
from reidray.storage.checkpoints import Checkpoint, CheckpointStore
from reidray.storage.pack import pack
from reidray.storage.weights import weights_hash
from reidray.training.context import open_split
from reidray.training.images import as_input
from reidray.training.loop import new_model
from tests.shell_lines import ROOT

FORMS = {
    **{name: {"method": {"name": name}} for name in METHODS},
    "scwm_global": {"scwm": {"feature": "global"}},
    "scwm_stripes": {"scwm": {"parts": "stripes"}},
    "gem": {"method": {"name": "cluster_contrast"}, "model": {"pooling": "gem"}},
    "osnet": {
        "method": {"name": "cluster_contrast"},
        "model": {"backbone": "osnet_x0_25", "embedding_layer": "keep"},
    },
    "avg+max": {"method": {"name": "cluster_contrast"}, "model": {"pooling": "avg+max"}},
}


def settings_of(form: str, **data) -> Settings:
    tree = FORMS[form]
    return Settings.model_validate(
        {**tree, "data": data, "model": {"weights": "none", "backbone": "small", **tree.get("model", {})}}
    )


def network_of(settings: Settings):
    """A network whose layers have all been somewhere: statistics, scales and shifts as training leaves them."""
    network = new_model(settings)
    generator = torch.Generator().manual_seed(1)
    for layer in network.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.running_mean.normal_(0, 0.1, generator=generator)
            layer.running_var.uniform_(0.5, 2, generator=generator)
            nn.init.uniform_(layer.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(layer.bias, 0, 0.1, generator=generator)
    return network


@pytest.fixture(scope="module")
def images():
    return drawn_images(96, 48, 40)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run folder of SCWM whose data are packed: 36 drawn pedestrians in a plain folder."""
    from PIL import Image

    place = tmp_path_factory.mktemp("run")
    (place / "crops").mkdir()
    for number, image in enumerate(drawn_images(128, 64, 36)):
        Image.fromarray(image).save(place / "crops" / f"{number:02d}.png")
    pack(folder.read(place / "crops"), place / "packed", images_per_shard=16, max_pixels=10**6, max_bytes=10**6)
    settings = settings_of("scwm", dataset="folder", root=str(place / "crops"), packed=str(place / "packed"))
    network = network_of(settings)
    store = CheckpointStore(place / "one" / "checkpoints", keep=1)
    store.save(Checkpoint(0, network.state_dict(), {}, [torch.get_rng_state()], {}, settings.model_dump(mode="json")))
    store.close()
    return place


@pytest.fixture(scope="module")
def exported(run) -> tuple[Path, str]:
    """That run as ONNX, by the command, and what the command said."""
    output, said = run / "scwm.onnx", io.StringIO()
    with redirect_stdout(said):
        main(["--run", str(run / "one"), "--output", str(output)], "reidray export")
    return output, said.getvalue()


def embeddings(run: Path):
    """What embedding gives for the run's images, and the images at the network's size."""
    settings = settings_of("scwm")
    samples = open_split(settings, str(run / "packed"), "train")
    network = network_of(settings)
    return (
        embed(network, settings, samples, lambda _: None),
        samples.rows(np.arange(36)),
        load(run / "one").id,
    )


def test_whoever_looks_at_the_images_of_a_run_once_keeps_none_of_them_decoded(run):
    once = open_split(settings_of("scwm"), str(run / "packed"), "train")
    worker = open_split(settings_of("scwm"), str(run / "packed"), "train", cached=True)
    np.testing.assert_array_equal(once.rows(np.arange(9)), worker.rows(np.arange(9)))
    assert (once.images.num_kept, worker.images.num_kept) == (0, 9)


def test_an_onnx_file_of_a_run_gives_what_embedding_gives_in_batches_of_any_size(run, exported):
    output, said = exported
    assert "opset 18" in said
    assert "takes pixels of 96x48 (height x width), gives 768 numbers of length 1" in said
    assert "compared with PyTorch on 36 training images of the run: lowest cosine 0.99999" in said
    expected_ND, pixels_NHW3, model_id = embeddings(run)
    session = onnxruntime.InferenceSession(str(output), providers=["CPUExecutionProvider"])
    given = pixels_NHW3.transpose(0, 3, 1, 2)
    for batch in (1, 5, 36):
        found = np.concatenate(
            [session.run(None, {"images": given[start : start + batch]})[0] for start in range(0, 36, batch)]
        )
        assert found.dtype == np.float32
        assert (found * expected_ND).sum(1).min() >= 0.9999
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    metadata = session.get_modelmeta().custom_metadata_map
    assert metadata["model_id"] == model_id
    assert (metadata["method"], metadata["backbone"], metadata["input"]) == ("scwm", "small", "pixels")
    assert (metadata["input_height"], metadata["input_width"], metadata["feature_width"]) == ("96", "48", "768")
    assert (metadata["opset"], metadata["precision"]) == ("18", "float32")
    assert json.loads(metadata["mean"]) == [0.485, 0.456, 0.406]
    opset = next(entry.version for entry in onnx.load(output).opset_import if entry.domain == "")
    assert opset == 18
    assert [entry.name for entry in run.glob(".*")] == []
    data = output.read_bytes()
    assert str(ROOT).encode() not in data, "a path of this machine is in the file"
    assert b"site-packages" not in data
    with pytest.raises(ValueError, match=r"scwm\.onnx exists and is not overwritten: choose another --output"):
        main(["--run", str(run / "one"), "--output", str(output)], "reidray export")


def test_a_pt2_file_gives_the_same_features_where_reidray_is_not_installed_and_holds_no_pickle(run):
    output = run / "scwm.pt2"
    main(["--run", str(run / "one"), "--format", "torch", "--output", str(output)], "reidray export")
    expected_ND, pixels_NHW3, _ = embeddings(run)
    np.save(run / "pixels.npy", pixels_NHW3.transpose(0, 3, 1, 2))
    program = (
        "import sys, numpy as np, torch\n"
        "model = torch.export.load('scwm.pt2').module()\n"
        "found = model(torch.from_numpy(np.load('pixels.npy')))\n"
        "assert 'reidray' not in sys.modules\n"
        "np.save('found.npy', found.numpy())\n"
    )
    subprocess.run([sys.executable, "-I", "-W", "ignore", "-c", program], check=True, cwd=run)
    assert (np.load(run / "found.npy") * expected_ND).sum(1).min() >= 0.9999
    with zipfile.ZipFile(output) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    metadata = next(json.loads(data) for name, data in contents.items() if name.endswith("reidray.json"))
    assert (metadata["method"], metadata["feature_width"]) == ("scwm", "768")
    for name, data in contents.items():
        assert str(ROOT).encode() not in data, f"{name}: a path of this machine"
        assert not data.startswith((b"\x80\x02", b"PK")), f"{name}: a pickle"


@pytest.mark.parametrize("form", FORMS)
def test_the_graph_of_every_method_gives_what_the_method_ranks(form, images):
    settings = settings_of(form)
    network, method = network_of(settings), make_method(settings)
    before = weights_hash(network.state_dict())
    graph = EmbeddingGraph(network, settings, given="pixels", precision="float32")
    with torch.no_grad():
        found = graph(torch.from_numpy(graph.as_given(images))).numpy()
        kept = method.to_evaluate(network.eval()(as_input(images, torch.device("cpu"))))
        expected = method.evaluated({name: rows.numpy() for name, rows in kept.items()})
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert weights_hash(network.state_dict()) == before


def test_a_graph_for_normalised_images_gives_the_same_as_one_for_pixels(images):
    settings = settings_of("cluster_contrast")
    network = network_of(settings)
    graphs = [EmbeddingGraph(network, settings, given=given, precision="float32") for given in ("pixels", "normalised")]
    with torch.no_grad():
        first, second = (graph(torch.from_numpy(graph.as_given(images))) for graph in graphs)
    assert graphs[0].as_given(images).dtype == np.uint8
    assert graphs[1].as_given(images).dtype == np.float32
    torch.testing.assert_close(first, second, atol=1e-5, rtol=0)


def test_a_file_in_float16_runs_on_a_cpu_has_half_the_size_and_takes_what_trackers_feed(tmp_path, images):
    settings = settings_of("cluster_contrast")
    network = network_of(settings)
    written = export_model(
        network, settings, tmp_path / "a.onnx", images, model_id="m", precision="float16", given="normalised"
    )
    assert written.path.stat().st_size < 0.6 * sum(4 * tensor.numel() for tensor in network.state_dict().values())
    session = onnxruntime.InferenceSession(str(written.path), providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].type == "tensor(float16)"
    assert session.get_inputs()[0].shape[1:] == [3, 96, 48]
    assert session.get_outputs()[0].type == "tensor(float)"
    assert written.agreement.least_cosine >= 0.999


def test_what_does_not_fit_into_float16_is_refused_and_leaves_no_file(tmp_path, images):
    settings = settings_of("cluster_contrast")
    network = network_of(settings)
    with torch.no_grad():
        network.backbone.stem[0].weight.mul_(1e6)  # numbers above 65,504 overflow; float32 has room
        network.backbone.stem[1].running_var.mul_(1e12)
    with pytest.raises(ValueError, match=r"does not give PyTorch's features.*nothing was written: take .*float32"):
        export_model(
            network,
            settings,
            tmp_path / "a.pt2",
            images,
            model_id="m",
            kind="torch",
            precision="float16",
        )
    assert list(tmp_path.iterdir()) == []


def test_features_that_are_not_pytorchs_are_refused():
    generator = np.random.default_rng(0)
    expected = generator.normal(size=(40, 16)).astype(np.float32)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    given, sizes = np.arange(40), []

    def run(numbers):
        sizes.append(len(numbers))
        return expected[numbers]

    agreement = compared(run, given, expected, precision="float32")
    assert (agreement.images, agreement.largest_difference) == (40, 0)
    assert len(set(sizes)) > 1, "a batch of one size alone says nothing of others"
    one_is_another = expected.copy()
    one_is_another[7] = expected[8]
    for features in (one_is_another, 2 * expected, np.full_like(expected, np.nan)):
        with pytest.raises(ValueError, match="nothing was written"):
            compared(lambda numbers, rows=features: rows[numbers], given, expected, precision="float32")
    with pytest.raises(ValueError, match=r"gives features float32 \(40, 15\) and PyTorch gives float32 \(40, 16\)"):
        compared(lambda numbers: expected[numbers, :15], given, expected, precision="float32")


def test_what_cannot_be_exported_is_refused_in_one_sentence(run, tmp_path, monkeypatch):
    def refused(match: str, *words: str) -> None:
        with pytest.raises(ValueError, match=match):
            main(["--run", str(run / "one"), *words], "reidray export")

    file = ("--output", str(tmp_path / "a.onnx"))
    refused(r"--format must be one of onnx, torch; got tflite", *file, "--format", "tflite")
    refused(r"--precision must be one of float32, float16; got int8", *file, "--precision", "int8")
    refused(r"--input must be one of pixels, normalised; got bgr", *file, "--input", "bgr")
    refused(r"there is no folder .*nowhere", "--output", str(tmp_path / "nowhere" / "a.onnx"))
    refused(r"--opset must be 18 to \d+ with the installed onnx; got 9", *file, "--opset", "9")
    refused(r"--format torch writes a file that ends in \.pt2; got --output .*a\.onnx", *file, "--format", "torch")
    refused(
        r"--format onnx writes a file that ends in \.onnx; got --output .*a\.foo", "--output", str(tmp_path / "a.foo")
    )
    refused(r"--opset is of ONNX", "--output", str(tmp_path / "a.pt2"), "--format", "torch", "--opset", "18")
    with pytest.raises(ValueError, match="has no whole checkpoint"):
        main(["--run", str(tmp_path), *file], "reidray export")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    refused(r"needs the extra `export`, and onnxscript is not installed: pip install 'reidray\[export\]'", *file)
    assert list(tmp_path.iterdir()) == []


def test_without_the_runs_data_drawn_pedestrians_are_compared_and_always_the_same(tmp_path):
    for place in (tmp_path / "gone", "s3://nobody/packed"):
        images, whence = images_to_compare(settings_of("scwm", packed=str(place)), 7)
        assert (whence, images.shape, images.dtype) == ("drawn pedestrians", (7, 96, 48, 3), np.uint8)
        np.testing.assert_array_equal(images, drawn_images(96, 48, 7))
    assert len({image.tobytes() for image in images}) == 7


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["onnx", "torch"])
@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("form", FORMS)
def test_every_method_can_be_exported(form, precision, kind, tmp_path, images):
    settings = settings_of(form)
    path = tmp_path / ("a.onnx" if kind == "onnx" else "a.pt2")
    export_model(network_of(settings), settings, path, images, model_id="m", kind=kind, precision=precision)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize(("backbone", "method"), [("resnet18", "ihc"), ("resnet50", "scwm")])
def test_resnets_can_be_exported(backbone, method, precision, tmp_path):
    settings = Settings.model_validate(
        {
            "method": {"name": method},
            "model": {"weights": "none", "backbone": backbone},
            "data": {"height": 256, "width": 128},
        }
    )
    images = drawn_images(256, 128, 12)
    export_model(network_of(settings), settings, tmp_path / "a.onnx", images, model_id="m", precision=precision)


@pytest.mark.slow
@pytest.mark.parametrize("opset", [19, 20, 21])
def test_newer_opsets_are_written_as_asked(opset, tmp_path, images):
    settings = settings_of("cluster_contrast")
    written = export_model(network_of(settings), settings, tmp_path / "a.onnx", images, model_id="m", opset=opset)
    assert written.metadata["opset"] == str(opset)
    model = onnx.load(tmp_path / "a.onnx")
    assert {entry.version for entry in model.opset_import if entry.domain == ""} == {opset}


def test_the_code_of_the_page_runs_and_compares_two_crops(run, exported, monkeypatch, capsys):
    place = run / "page"
    place.mkdir()
    (place / "people.onnx").write_bytes(exported[0].read_bytes())
    for number, name in enumerate(("one.jpg", "two.jpg")):
        (place / name).write_bytes((run / "crops" / f"{number:02d}.png").read_bytes())
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "export.md").read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 1
    monkeypatch.chdir(place)
    exec(compile(blocks[0], "docs/export.md", "exec"), {})
    similarity = float(capsys.readouterr().out.removeprefix("cosine similarity"))
    first, second = embeddings(run)[0][:2]
    assert similarity == pytest.approx(float(first @ second), abs=1e-4)
