"""The Python form against the real server that nvidia-pytriton carries (``make test-triton``)."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmms_deploy import Session
from mmms_deploy.bundle import Bundle
from mmms_deploy.doors.opening import Opening
from mmms_deploy.doors.triton.conformance import doors
from mmms_deploy.doors.triton.repository import write_repository
from mmms_deploy.doors.triton.server import HOST, TritonServer, this_python
from mmms_deploy.doors.triton.settings import Form, RepositorySettings
from mmms_deploy.errors import DoorError
from mmms_deploy.session import Click
from tests.support.paths import ROOT
from tests.support.toy import write_toy

pytestmark = pytest.mark.triton
(DOOR,) = doors
NAME = "demo-small"
FILE = ROOT / "docs" / "images" / "photo.jpg"
PHOTO = np.asarray(Image.open(FILE).convert("RGB"))
OTHER = np.ascontiguousarray(PHOTO[40:400, 100:301])
IDLE = 2.0
TYPES = {"image": "UINT8", "image_file": "BYTES", "click": "FP64", "clicks": "FP64", "action": "BYTES"}
Send = Callable[..., np.ndarray]


@pytest.fixture(scope="module", autouse=True)
def installed() -> None:
    why = DOOR.missing()
    if why is not None:
        pytest.skip(why)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    folder = tmp_path_factory.mktemp("triton") / "models"
    write_repository(folder, NAME, RepositorySettings(python_path=this_python(), idle=IDLE))
    with TritonServer(folder) as started:
        yield started


@pytest.fixture
def send(server: TritonServer) -> Iterator[Send]:
    import tritonclient.http as http

    with http.InferenceServerClient(server.address) as client:

        def infer(sequence: int, *, start: bool = False, end: bool = False, **arrays: Any) -> np.ndarray:
            inputs = []
            for name, given in arrays.items():
                array = np.array([given], object) if isinstance(given, bytes) else np.asarray(given)
                array = array.astype(np.float64) if TYPES[name] == "FP64" else array
                inputs.append(http.InferInput(name, list(array.shape), TYPES[name]))
                inputs[-1].set_data_from_numpy(array)
            answer = client.infer(NAME, inputs, sequence_id=sequence, sequence_start=start, sequence_end=end)
            mask: np.ndarray = answer.as_numpy("mask")
            assert mask.dtype == np.uint8
            return mask

        yield infer


@pytest.fixture
def sessions() -> Iterator[tuple[Session, Session]]:
    with Session(NAME) as one, Session(NAME) as two:
        one.set_image(PHOTO)
        two.set_image(OTHER)
        yield one, two


def refused(call: Callable[[], object]) -> tuple[str, str]:
    """The status and the text of a refusal."""
    from tritonclient.utils import InferenceServerException

    with pytest.raises(InferenceServerException) as caught:
        call()
    return caught.value.status(), caught.value.message()


def test_it_listens_on_this_machine_alone(server: TritonServer) -> None:
    assert server.address.startswith(f"{HOST}:")
    # Sockets of every address that listen at the port: 0A is LISTEN in /proc/net/tcp.
    for table in ("tcp", "tcp6"):
        lines = [line.split() for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]]
        local = {line[1] for line in lines if line[3] == "0A" and line[1].endswith(f":{server.port:04X}")}
        assert local <= {f"0100007F:{server.port:04X}"}


def test_interleaved_sequences_are_bit_equal_to_sessions(send: Send, sessions: tuple[Session, Session]) -> None:
    one, two = sessions
    assert send(1, start=True, image=PHOTO).shape == PHOTO.shape[:2]
    first = send(2, start=True, image=OTHER, click=[60, 70, 1])
    assert (first == two.click(60, 70).mask).all()
    for number, (x, y, positive) in enumerate([(220, 130, True), (420.5, 440.25, False), (300, 300, True)]):
        mask = send(1, click=[x, y, positive])
        assert mask.any()
        assert (mask == one.click(x, y, positive).mask).all()
        assert (send(2, click=[50 + number, 90, 0]) == two.click(50 + number, 90, positive=False).mask).all()
    assert (send(1, action=b"undo") == one.undo().mask).all()
    assert (send(1, action=b"redo") == one.redo().mask).all()
    clicks = [[220, 130, 1], [10, 10, 0]]
    assert (send(1, clicks=clicks) == one.set_clicks(clicks).mask).all()
    one.set_image(OTHER)
    assert not send(1, image=OTHER).any(), "a second picture, of another size, in the same sequence"
    assert (send(1, click=[60, 70, 1]) == one.click(60, 70).mask).all()
    assert (send(2, end=True) == two.mask).all()
    status, text = refused(lambda: send(2, click=[1, 1, 1]))
    assert (status, "must specify the START flag" in text) == ("400", True)
    send(1, end=True)


def test_a_file_is_taken_as_it_is(send: Send, sessions: tuple[Session, Session]) -> None:
    mask = send(3, start=True, end=True, image_file=FILE.read_bytes(), click=[220, 130, 1])
    one, _ = sessions
    one.set_image(FILE)
    assert (mask == one.click(220, 130).mask).all()


def test_missing_start(send: Send) -> None:
    status, text = refused(lambda: send(77, click=[1, 1, 1]))
    assert (status, "must specify the START flag" in text) == ("400", True)


def test_a_bad_request_changes_nothing_and_says_everything(send: Send, sessions: tuple[Session, Session]) -> None:
    one, _ = sessions
    status, text = refused(lambda: send(4, start=True, click=[1, 1, 1]))
    assert (status, "has no picture yet" in text, "to fix: send image" in text) == ("400", True, True)
    send(4, image=PHOTO)
    send(4, click=[220, 130, 1])
    one.click(220, 130)
    for arrays, said in (
        ({"click": [5000, 1, 1]}, "expected: -0.5 <= x < 511.5"),
        ({"action": b"unod"}, "did you mean 'undo'?"),
        ({"click": [1, 1, 1], "action": b"undo"}, "a request has click and action"),
        ({"image": OTHER, "click": [500, 1, 1]}, "outside of the image"),
        ({"image_file": b"no picture"}, "to fix: "),
        ({"click": [1, 1]}, "unexpected shape"),
    ):
        status, text = refused(lambda arrays=arrays: send(4, **arrays))
        assert (status, said in text) == ("400", True), text
    assert (send(4, click=[30, 40, 0]) == one.click(30, 40, positive=False).mask).all()
    send(4, end=True)


def test_an_idle_sequence_is_forgotten(send: Send) -> None:
    send(5, start=True, image=PHOTO)
    send(5, click=[220, 130, 1])
    from tritonclient.utils import InferenceServerException

    until = time.monotonic() + 60
    while time.monotonic() < until:
        time.sleep(IDLE * 1.5)
        with suppress(InferenceServerException):
            send(5)
            continue
        break
    assert "must specify the START flag" in refused(lambda: send(5))[1]
    assert send(5, start=True, image=PHOTO).shape == PHOTO.shape[:2]
    send(5, end=True)


def test_the_door_of_the_comparison() -> None:
    bundle = Bundle(NAME)
    opened = DOOR.open(bundle, Opening(engine="onnxruntime", threads=1))
    try:
        with Session(bundle, engine="onnxruntime", threads=1) as session:
            for image in (PHOTO, OTHER):
                opened.set_image(image)
                session.set_image(image)
                clicks = [Click(60.0, 70.0, True), Click(10.0, 20.5, False), Click(100.25, 99.0, True)]
                for count in range(1, 4):
                    expected = session.click(clicks[count - 1].x, clicks[count - 1].y, clicks[count - 1].positive)
                    mask = opened.mask(clicks[:count])
                    assert (mask.dtype, (mask == expected.mask).all()) == (np.bool_, True)
                assert (opened.mask(clicks[1:2]) == session.set_clicks(clicks[1:2]).mask).all(), "another beginning"
    finally:
        opened.close()


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    settings = RepositorySettings(python_path=this_python(), opening=Opening(engine="tensorrt"), copy=False)
    write_repository(tmp_path / "models", NAME, settings)
    with pytest.raises(DoorError, match=r"ended with code 1:\nEngineUnavailableError: CUDA was requested") as caught:
        TritonServer(tmp_path / "models")
    assert "to fix: on a machine with an NVIDIA GPU" in str(caught.value)
    assert "At:" not in str(caught.value)
    write_repository(tmp_path / "onnx", NAME, RepositorySettings(form=Form.ONNX))
    with pytest.raises(DoorError, match="unable to find backend library for backend 'onnxruntime'"):
        TritonServer(tmp_path / "onnx")  # nvidia-pytriton has the Python backend alone
    with pytest.raises(DoorError, match="there is no folder"):
        TritonServer(tmp_path / "nothing")


def test_the_command_runs_it_until_it_is_told_to_end(tmp_path: Path) -> None:
    write_repository(tmp_path / "models", NAME, RepositorySettings(python_path=this_python()))
    line = [sys.executable, "-m", "mmms_deploy.commands.serve", "triton-run", tmp_path / "models", "--port", "0"]
    done = subprocess.run(line, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 2, "a port that a client can be told"
    with socket.socket() as free:
        free.bind((HOST, 0))
        line[-1] = str(free.getsockname()[1])
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=env
    ) as started:
        assert started.stdout is not None
        assert started.stdout.readline() == f"Triton answers at http://{HOST}:{line[-1]}\n"
        started.send_signal(signal.SIGTERM)
        assert started.wait(30) == 143
    assert [path.name for path in tmp_path.iterdir()] == ["models"]
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((HOST, int(line[-1])), timeout=5)


def test_configurations_are_what_tritons_schema_says(tmp_path: Path) -> None:
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    toys = [Bundle(NAME), write_toy(tmp_path / "labels", labels=True)]
    for number, bundle in enumerate(toys):
        for form in Form:
            out = tmp_path / f"{form}{number}"
            names = write_repository(out, bundle, RepositorySettings(form=form))
            for name in names:
                text = (out / name / "config.pbtxt").read_text()
                config = text_format.Parse(text, model_config_pb2.ModelConfig())
                assert config.name == name
                if form is not Form.PYTHON and name == names[-1]:
                    states = config.sequence_batching.state
                    assert [(one.input_name, one.output_name) for one in states] == [
                        (link.input, link.output) for link in bundle.manifest.state
                    ]
                    shapes = {spec.name: spec.shape for spec in bundle.manifest.stages[-1].graphs["fp32"].inputs}
                    assert all(tuple(one.initial_state[0].dims) == shapes[one.input_name] for one in states)
    with pytest.raises(text_format.ParseError, match="max_batch"):
        text_format.Parse('name: "a" max_batch: 3', model_config_pb2.ModelConfig())
