"""Real pictures with what other sensors saw of the same scene, read from the folder of test data."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from tests.support.paths import DATA

SELMA = DATA / "selma" / "Town01_Opt_ClearNight"
FAR = 1000.0
"""What SELMA's depth camera says of the sky, metres."""


def read(path: Path) -> npt.NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image)


def mfnet(name: str = "00101D.png") -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """RGB and thermal of one four-channel picture."""
    both = read(DATA / "mfnet" / "images" / name)
    return np.ascontiguousarray(both[..., :3]), np.ascontiguousarray(both[..., 3])


def selma(view: str = "FRONT") -> tuple[Path, npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """A view's picture, its depth (H, W) in metres, and lidar (H, W, 3): x, y, z in metres, zeros without a return."""
    (rgb,) = (SELMA / f"CAM_{view}").glob("*.jpg")
    red, green, blue = (
        read(SELMA / f"DEPTHCAM_{view}" / f"{rgb.stem}.png")[..., :3].astype(np.float64).transpose(2, 0, 1)
    )
    depth = (red + 256 * green + 65536 * blue) / (2**24 - 1) * FAR
    points = _in_camera(_points(SELMA / "LIDAR_TOP" / f"{rgb.stem}.ply"), view)
    points = points[points[:, 0] > 0.5]
    columns = np.rint(640 + 640 * points[:, 1] / points[:, 0]).astype(int)
    rows = np.rint(320 - 640 * points[:, 2] / points[:, 0]).astype(int)
    seen = (columns >= 0) & (columns < 1280) & (rows >= 0) & (rows < 640)
    lidar = np.zeros((640, 1280, 3), dtype=np.float32)
    lidar[rows[seen], columns[seen]] = points[seen]
    return rgb, depth.astype(np.float32), lidar


def _points(path: Path) -> npt.NDArray[np.float64]:
    raw = path.read_bytes()
    start = raw.index(b"\n", raw.index(b"end_header")) + 1
    kinds = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("object", "<u4"), ("tag", "u1")])
    count = int(raw[:start].split(b"element vertex ")[1].split()[0])
    vertices = np.frombuffer(raw, kinds, count, start)
    return np.stack([vertices[axis] for axis in "xyz"], axis=1).astype(np.float64)


def _in_camera(points: npt.NDArray[np.float64], view: str) -> npt.NDArray[np.float64]:
    """From the lidar's axes to a camera's: x forwards, y to the right, z upwards."""
    sensors = {sensor["sensor_name"]: sensor for sensor in json.loads((SELMA / "calibrated_sensor.json").read_text())}
    lidar, camera = sensors["LIDAR_TOP"], sensors[f"CAM_{view}"]
    in_vehicle = points @ _rotation(lidar["rotation"]).T + lidar["translation"]
    return (in_vehicle - camera["translation"]) @ _rotation(camera["rotation"])


def _rotation(angles: dict[str, float]) -> npt.NDArray[np.float64]:
    """Left-handed, as the simulator has it."""
    yaw, pitch = np.radians(angles.get("yaw", 0.0)), np.radians(angles.get("pitch", 0.0))
    about_z = [[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]]
    about_y = [[np.cos(pitch), 0, np.sin(pitch)], [0, 1, 0], [-np.sin(pitch), 0, np.cos(pitch)]]
    return np.array(about_z) @ np.array(about_y)
