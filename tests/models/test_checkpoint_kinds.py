"""Files that are no checkpoints are named as what they are, with what to do."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mmms_deploy.errors import CheckpointCorruptError
from mmms_deploy.models.checkpoint import read_checkpoint_file


def zipped(**entries: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name.replace("__", "/").replace("_dot_", "."), content)
    return buffer.getvalue()


def tarred(*names: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(name))
    return buffer.getvalue()


def scripted() -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)), buffer)
    return buffer.getvalue()


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 612345678\n"
PAGE = b"\n<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title></head></html>"
ONNX = b"\x08\x0a\x12\x07pytorch\x1a\x032.1" + bytes(40)
FILES = {
    "a Git LFS pointer": (LFS, "git lfs pull"),
    "a web page": (PAGE, "sign in or confirm"),
    "an XML file": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "download it again"),
    "a JSON file": (json.dumps({"size": [448, 448]}).encode(), "a description goes beside them"),
    "an index of weights in several files": (json.dumps({"weight_map": {}}).encode(), "one safetensors file"),
    'a text file that begins with "404: Not Found"': (b"404: Not Found", "download it again"),
    "an empty file": (b"", "download it again"),
    "an ONNX graph": (ONNX, "PyTorch checkpoint that it was made from"),
    "a TensorRT plan": (b"ftrt" + bytes(60), "PyTorch checkpoint that it was made from"),
    "an HDF5 file": (b"\x89HDF\r\n\x1a\n" + bytes(60), "with the software that wrote it"),
    "a TensorFlow Lite model": (b"\x1c\x00\x00\x00TFL3" + bytes(60), "with the software that wrote it"),
    "a NumPy array": (b"\x93NUMPY\x01\x00" + bytes(60), "with the software that wrote it"),
    "NumPy arrays": (zipped(a_dot_npy=b""), "with the software that wrote it"),
    "a zip archive of notes.txt, weights.pth": (zipped(weights_dot_pth=b"", notes_dot_txt=b""), "unpack it"),
    "a gzip archive": (gzip.compress(b"x"), "unpack it"),
    "a tar archive of a.txt": (tarred("a.txt"), "unpack it"),
    "a tar archive of a PyTorch before 0.2": (tarred("sys_info", "pickle", "storages", "tensors"), "that wrote it"),
    "a plain pickle of NumPy arrays": (pickle.dumps({"w": np.ones(3)}), "with the software that wrote it"),
    "a plain pickle, not": (pickle.dumps({"w": [1.0]}, protocol=2), "with the software that wrote it"),
    "of no known kind": (bytes(range(200, 256)) * 9, "compare its hash"),
}


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".ckpt", ".safetensors"])
@pytest.mark.parametrize("kind", list(FILES))
def test_named_as_what_they_are(tmp_path, kind, suffix) -> None:
    content, fix = FILES[kind]
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(CheckpointCorruptError) as caught:
        read_checkpoint_file(path)
    if not (suffix == ".safetensors" and kind == "of no known kind"):
        assert f"{path} is {kind}" in str(caught.value)
        assert fix in str(caught.value.fix)


@pytest.mark.filterwarnings("ignore:.torch.jit")
def test_torchscript(tmp_path) -> None:
    (tmp_path / "c.pt").write_bytes(scripted())
    with pytest.raises(CheckpointCorruptError, match=r"(?s)a TorchScript archive.*torch\.jit\.load"):
        read_checkpoint_file(tmp_path / "c.pt")


@pytest.mark.parametrize("name", ["net.onnx", "net.engine", "net.pb", "model.ckpt.data-00000-of-00001"])
def test_unknown_contents_by_suffix(tmp_path, name) -> None:
    (tmp_path / name).write_bytes(bytes(range(200, 256)) * 9)
    with pytest.raises(CheckpointCorruptError, match=r"an ONNX graph|a TensorRT plan|TensorFlow"):
        read_checkpoint_file(tmp_path / name)


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (("bundle.json",), "a bundle"),
        (("saved_model.pb",), "a TensorFlow SavedModel"),
        ((".metadata", "__0_0.distcp"), "a distributed checkpoint"),
        (("model.safetensors", "config.json"), r"a folder with model\.safetensors"),
    ],
)
def test_folders(tmp_path, names, kind) -> None:
    for name in names:
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(CheckpointCorruptError, match=f"is {kind}"):
        read_checkpoint_file(tmp_path)


def test_the_suffix_does_not_decide(tmp_path) -> None:
    """Safetensors named .pt, with every length of their header that a pickle or an archive might begin with."""
    from safetensors.torch import save_file

    for length in (1, 40, 72, 120):
        name = "w." + "x" * length
        save_file({name: torch.ones(2)}, tmp_path / "c.pt")
        assert list(read_checkpoint_file(tmp_path / "c.pt").state) == [name]
    torch.save({"w.x": torch.ones(2)}, tmp_path / "c.safetensors")
    assert list(read_checkpoint_file(Path(tmp_path / "c.safetensors")).state) == ["w.x"]
