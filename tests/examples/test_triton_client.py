"""The client of Triton, as a user starts it who has copied it, against the real server (``make test-triton``)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmms_deploy import Session
from mmms_deploy.doors.triton.conformance import doors
from mmms_deploy.doors.triton.repository import write_repository
from mmms_deploy.doors.triton.server import TritonServer, this_python
from mmms_deploy.doors.triton.settings import RepositorySettings
from tests.support.paths import ROOT

CLIENT = ROOT / "examples" / "triton_client.py"
PHOTO = ROOT / "docs" / "images" / "photo.jpg"


def test_it_is_as_short_as_it_says() -> None:
    code = CLIENT.read_text().split('"""\n', 2)[1]
    assert len([line for line in code.splitlines() if line.strip() and '"""' not in line]) <= 20


@pytest.mark.triton
def test_it_writes_a_sessions_mask(tmp_path: Path) -> None:
    why = doors[0].missing()
    if why is not None:
        pytest.skip(why)
    write_repository(tmp_path / "models", "demo-small", RepositorySettings(python_path=this_python()))
    with TritonServer(tmp_path / "models") as server, Session("demo-small") as session:
        line = [server.address, "demo-small", str(PHOTO), str(tmp_path / "mask.png"), "220,130,1", "40,50,0"]
        done = subprocess.run([sys.executable, CLIENT, *line], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        session.set_image(PHOTO)
        areas = [session.click(220, 130).area, session.click(40, 50, positive=False).area]
        assert done.stdout == f"220,130,1: {areas[0]} pixels\n40,50,0: {areas[1]} pixels\n"
        assert (np.asarray(Image.open(tmp_path / "mask.png")) == session.mask * np.uint8(255)).all()
