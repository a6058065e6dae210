"""A static export: one picture to click on, as a folder that runs from any web server without a program behind it.

The folder holds the page, the picture, its features, the click stage and onnxruntime-web:

    index.html, app.js, browser/..., ...    the page, as the server of mmms-demo gives it
    static.json                             what the page has to know; index.html names it: there is no server
    picture/image.jpg, picture/depth.png    the picture and the modalities, upright, without metadata
    features.bin                            the image's features in half precision (mmms_deploy.page.features)
    model/                                  the click stage's graph, and its weights
    runtime/                                onnxruntime-web, its modules named .js, and its licence
    README.txt                              how to serve the folder

``static.json`` is an object of these fields; files are relative to the folder:

- ``format``, ``version``: ``"mmms-deploy-static"``, 1
- ``bundle``: name of the bundle
- ``image_size``: [H0, W0]
- ``model``: as the server answers to ``GET model``, with the engine of the browser and without limits
- ``browser``: the click stage, :class:`~mmms_deploy.page.model.BrowserModel`
- ``picture``: ``{"name", "size": [H0, W0], "layers": {"image": file, NAME OF A MODALITY: file}}``
- ``features``: the file of the features
- ``files``: the folder of the click stage's files, with a slash at its end
- ``runtime``: the folder of onnxruntime-web's, likewise

WebGPU is in it by default: 27 MB more in the folder, of which a browser fetches nothing unless it has WebGPU, and then
not the 14 MB of the other build. ``webgpu=False`` leaves them out.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import msgspec
import numpy as np

from mmms_deploy.bundle import Bundle
from mmms_deploy.errors import EngineUnavailableError
from mmms_deploy.files import PathLike, as_path, read_bytes
from mmms_deploy.files.folders import check_replaceable, whole_folder
from mmms_deploy.files.reading import GIB
from mmms_deploy.imaging.io import load_modality, load_rgb
from mmms_deploy.page.features import encode_features
from mmms_deploy.page.layers import drawn_modality, png_of, shown_picture
from mmms_deploy.page.model import BrowserModel, browser_model
from mmms_deploy.page.network import described_network
from mmms_deploy.page.runtime import LICENSE, NO_RUNTIME, ONNXRUNTIME_WEB, WASM_ONLY, runtime_files
from mmms_deploy.session import Session
from mmms_deploy.version import __version__

FORMAT, VERSION = "mmms-deploy-static", 1
DESCRIPTION = "static.json"
FEATURES, MODEL, RUNTIME, PICTURE = "features.bin", "model/", "runtime/", "picture/"
PAGE = Path(__file__).parent / "files"
"""The page's files."""
_NAMES = "browser/runtime_names.js"
_MODULE, _SERVED_MODULE = ".mjs", ".js"
"""The ending of onnxruntime-web's modules, and the one that every web server knows."""
_README = """\
{name}: a picture to click on, by mmms-deploy {version}
{line}

This folder is a whole web page. Any web server can serve it; no program has to run behind it. To look at it here:

    python3 -m http.server --bind 127.0.0.1 --directory . 8000

and open http://127.0.0.1:8000 in a browser. Clicks are answered in the browser: nothing is sent anywhere.

It does not work when index.html is opened as a file (file://): browsers load neither modules nor WebAssembly from
files, which belong to no web site.

Faster, with several threads: browsers allow them where a server sends these headers with every file of the folder:

    Cross-Origin-Opener-Policy: same-origin
    Cross-Origin-Embedder-Policy: require-corp

nginx:   add_header Cross-Origin-Opener-Policy same-origin; add_header Cross-Origin-Embedder-Policy require-corp;
Apache:  Header set Cross-Origin-Opener-Policy same-origin
         Header set Cross-Origin-Embedder-Policy require-corp
Caddy:   header Cross-Origin-Opener-Policy same-origin
         header Cross-Origin-Embedder-Policy require-corp

Without them everything works in one thread, and the page says so. They are sent over https, or to 127.0.0.1. Where a
browser has WebGPU, the graphics card computes, and threads do not matter.

onnxruntime-web is Microsoft's, under the MIT licence (runtime/{license}). The picture, and the network's weights in
model/, have licences of their own.
"""


def write_static(
    out: PathLike,
    bundle: Bundle | PathLike,
    image: PathLike,
    modalities: Mapping[str, PathLike] | None = None,
    *,
    overwrite: bool = False,
    webgpu: bool = True,
    threads: int | None = None,
) -> Path:
    """Write a folder in which a picture can be clicked on, whole or not at all.

    Args:
        out: The folder: a new one, an empty one, or an older static export to replace.
        bundle: A bundle, or what names one.
        image: File of the picture.
        modalities: Files of the modalities, by name.
        overwrite: Whether an older static export may be replaced. Nothing else ever is.
        webgpu: Whether onnxruntime-web's build for WebGPU is there, too.
        threads: CPU threads with which the features are computed; None takes the physical cores.

    Returns:
        The folder.

    Raises:
        EngineUnavailableError: The bundle's click stage runs in no browser; or onnxruntime-web is not here.
        OutputExistsError: The folder exists, and may not be replaced.
        OutputWriteError: It cannot be written.
        BundleError, EngineError: There is no usable bundle or engine.
        ImageError, ModalityError: The picture or a modality cannot be read, or is another one than the bundle's.
        FeatureError: The features are beyond the range of half precision.
    """
    target = as_path(out, "the folder of a static export")
    _check_replaceable(target, overwrite=overwrite)
    opened = bundle if isinstance(bundle, Bundle) else Bundle(bundle)
    model, runtime = _checked(opened)
    given = {} if modalities is None else dict(modalities)
    with Session(opened, precision="fp32", threads=threads, keep_image=False) as session:
        session.set_image(os.fspath(image), **{name: os.fspath(file) for name, file in given.items()})
        features, size = encode_features(session), session.image_size
    with whole_folder(target, partial(_check_replaceable, target, overwrite=overwrite)) as folder:
        shutil.copytree(PAGE, folder, dirs_exist_ok=True)
        _name_description(folder / "index.html")
        (folder / FEATURES).write_bytes(features)
        for made in (MODEL, PICTURE):
            (folder / made).mkdir()
        for file in model.files:
            shutil.copyfile(opened.file(file.name), folder / MODEL / file.name)
        _copy_runtime(runtime, folder, webgpu=webgpu)
        layers = _write_layers(folder, opened, image, given)
        description = _described(opened, model, Path(os.fspath(image)).name, size, layers)
        (folder / DESCRIPTION).write_bytes(msgspec.json.format(msgspec.json.encode(description), indent=1) + b"\n")
        title = f"{opened.manifest.name}: a picture to click on, by mmms-deploy {__version__}"
        text = _README.format(
            name=opened.manifest.name, version=__version__, line="=" * len(title), license=LICENSE.name
        )
        (folder / "README.txt").write_text(text, encoding="utf-8")
    return target


def _name_description(page: Path) -> None:
    """Let the page know that it has no server, and where it is told about its picture."""
    text, empty = page.read_text(encoding="utf-8"), '<meta name="mmms-deploy-static" content="">'
    assert empty in text
    page.write_text(text.replace(empty, empty.replace('""', f'"{DESCRIPTION}"')), encoding="utf-8")


def _checked(bundle: Bundle) -> tuple[BrowserModel, Path]:
    """Return the click stage for a browser, and the folder of onnxruntime-web."""
    model, runtime = browser_model(bundle), runtime_files()
    if not model.available:
        raise EngineUnavailableError(
            f"a static export needs a browser that clicks: {model.why}",
            expected="a network whose click stage runs in a browser",
            fix="serve the page with a Session behind it: mmms-demo without --static",
        )
    if runtime is None:
        raise EngineUnavailableError(
            NO_RUNTIME.partition(",")[0],
            expected="its files, which a static export holds",
            fix="fetch them once: mmms_deploy.page.runtime.fetch_runtime()",
            command_fix="fetch them once: `make demo-page` in a clone, else `python -m mmms_deploy.page.runtime`",
        )
    return model, runtime


def _copy_runtime(runtime: Path, folder: Path, *, webgpu: bool) -> None:
    (folder / RUNTIME).mkdir()
    names = [file.name for file in ONNXRUNTIME_WEB.files if webgpu or file.name in WASM_ONLY]
    for name in names:
        served = name.removesuffix(_MODULE) + _SERVED_MODULE if name.endswith(_MODULE) else name
        shutil.copyfile(runtime / name, folder / RUNTIME / served)
    shutil.copyfile(LICENSE, folder / RUNTIME / LICENSE.name)
    text = (PAGE / _NAMES).read_text(encoding="utf-8")
    (folder / _NAMES).write_text(text.replace(f'"{_MODULE}"', f'"{_SERVED_MODULE}"'), encoding="utf-8")


def _write_layers(folder: Path, bundle: Bundle, image: PathLike, modalities: Mapping[str, PathLike]) -> dict[str, str]:
    """Write the picture and the modalities as a browser shows them; return their files by name."""
    content, suffix = shown_picture(read_bytes(Path(os.fspath(image)), GIB), load_rgb(os.fspath(image)))
    layers = {"image": f"{PICTURE}image.{suffix}"}
    (folder / layers["image"]).write_bytes(content)
    specs = {spec.name: spec for spec in bundle.manifest.modalities}
    for name, file in modalities.items():
        layers[name] = f"{PICTURE}{name}.png"
        drawn = drawn_modality(np.ma.getdata(load_modality(os.fspath(file), name)), specs[name])
        (folder / layers[name]).write_bytes(png_of(drawn))
    return layers


def _described(
    bundle: Bundle, model: BrowserModel, picture: str, size: tuple[int, int], layers: Mapping[str, str]
) -> dict[str, object]:
    manifest = bundle.manifest
    return {
        "format": FORMAT,
        "version": VERSION,
        "bundle": manifest.name,
        "image_size": size,
        "model": {
            **described_network(manifest),
            "engine": {
                "library": ONNXRUNTIME_WEB.name,
                "version": ONNXRUNTIME_WEB.version,
                "device": None,
                "precision": "fp32",
                "threads": None,
                "reason": "there is no server: clicks are answered in the browser",
            },
            "limits": {},
            "saves": False,
        },
        "browser": model.to_json(),
        "picture": {"name": picture, "size": size, "layers": layers},
        "features": FEATURES,
        "files": MODEL,
        "runtime": RUNTIME,
    }


# --- the folder -------------------------------------------------------------------------------------------------------


def _check_replaceable(folder: Path, *, overwrite: bool) -> None:
    """Check that a folder is not there, is empty, or is a static export that may be replaced.

    Raises:
        OutputExistsError: It is something else.
        OutputWriteError: It cannot be looked at.
    """

    def other(folder: Path) -> str | None:
        return None if _is_export(folder) else "is neither empty nor a static export"

    check_replaceable(folder, "an older static export", "--static", other, overwrite=overwrite)


def _is_export(folder: Path) -> bool:
    with contextlib.suppress(OSError, ValueError, msgspec.MsgspecError):
        found = msgspec.json.decode((folder / DESCRIPTION).read_bytes())
        return isinstance(found, dict) and found.get("format") == FORMAT
    return False
