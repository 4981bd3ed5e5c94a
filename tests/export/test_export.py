import json
import shutil

import numpy as np
import pytest
import torch

import fmnist_lit
from fmnist_lit.data.synthetic import draw_split
from fmnist_lit.export import formats
from fmnist_lit.export.__main__ import main

PIXELS = draw_split(7, 3, "test")[0][:, None]


@pytest.fixture
def copied(trained_run, tmp_path):
    return shutil.copytree(trained_run, tmp_path / "copy")


def onnx(path):
    session = pytest.importorskip("onnxruntime").InferenceSession(path)
    values = session.get_modelmeta().custom_metadata_map
    return session.run(["probabilities"], {"images": PIXELS})[0], {
        key: json.loads(value) if key != "dataset" and key != "producer" else value for key, value in values.items()
    }


def program(path):
    extra = {"metadata.json": ""}
    loaded = torch.export.load(path, extra_files=extra)
    return loaded.module()(torch.from_numpy(PIXELS))[0].numpy(), json.loads(extra["metadata.json"])


def weights(path):
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        values = {key: json.loads(value) for key, value in file.metadata().items() if key != "format"}
    return fmnist_lit.load_classifier(path).predict(PIXELS).probabilities.numpy(), values


@pytest.mark.parametrize(
    ("format", "name", "use"),
    [("onnx", "best.onnx", onnx), ("torch", "best.pt2", program), ("safetensors", "best.safetensors", weights)],
)
def test_exported_file_predicts_from_raw_pixels_and_says_what_it_is(copied, format, name, use, capsys):
    assert main([str(copied), "--format", format]) == 0
    assert "the largest difference on 1000 test images of the SYNTHETIC stand-in" in capsys.readouterr().out
    probabilities, metadata = use(copied / "export" / name)
    classifier = fmnist_lit.load_classifier(copied)
    assert np.allclose(probabilities, classifier.predict(PIXELS).probabilities, atol=1e-5)
    assert metadata["classes"] == list(classifier.classes)
    assert metadata["dataset"] == "synthetic"
    results = json.loads((copied / "results.json").read_text())
    assert metadata["metrics"]["test_accuracy"] == results["test_accuracy"]
    assert metadata["configuration"]["model"]["hidden_sizes"] == [32]
    content = (copied / "export" / name).read_bytes()
    assert str(copied.parent.parent).encode() not in content  # nothing of the machine
    assert b"formats.py" not in content


def test_export_that_computes_otherwise_is_not_written(copied, monkeypatch, capsys):
    def wrong(classifier):
        content, run = formats.to_safetensors(classifier)
        return content, lambda images: tuple(output + 2e-5 for output in run(images))

    monkeypatch.setitem(formats.FORMATS, "safetensors", wrong)
    assert main([str(copied), "--format", "safetensors"]) == 1
    assert "not written, its outputs differ by 2.0e-05, more than 1e-05" in capsys.readouterr().err
    assert not (copied / "export").exists()


def test_missing_package_is_named_with_its_extra(copied, monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    assert main([str(copied), "--format", "onnx"]) == 1
    assert capsys.readouterr().err == (
        "error: onnxruntime is not installed; pip install 'fmnist_lit[export]' installs it\n"
    )


def test_output_of_another_kind_is_a_bad_argument(copied, capsys):
    assert main([str(copied), "--format", "onnx", "--output", "a.pt2"]) == 2
    assert "must be the name of a .onnx file" in capsys.readouterr().err


def test_file_that_cannot_be_written_is_an_error(copied, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main([str(copied), "--format", "safetensors", "--output", str(tmp_path / "file" / "a.safetensors")]) == 1
    assert "file" in capsys.readouterr().err
