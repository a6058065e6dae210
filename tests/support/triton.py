"""Triton's configurations as data, and a model repository of stages run as Triton runs it, in ONNX Runtime."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnxruntime

from mmms_deploy.bundle.contract import ClickContract, ImageSpec
from mmms_deploy.imaging.coordinates import to_network
from mmms_deploy.imaging.preprocess import prepare
from mmms_deploy.session.answers import NetworkAnswer

_TOKEN = re.compile(r'\s*("(?:[^"\\]|\\.)*"|[{}\[\],:]|[\w.\-]+)')
_TYPES = {"TYPE_FP32": "float32", "TYPE_FP16": "float16", "TYPE_UINT8": "uint8"}


def read_pbtxt(text: str) -> dict[str, Any]:
    """Return protobuf's text format as dicts and lists; words of enums are texts."""
    tokens = iter([*_TOKEN.findall(text), "}"])
    return _message(tokens)


def _message(tokens: Iterator[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for token in tokens:
        if token == "}":
            return found
        first = next(tokens)
        assert token not in found, token
        found[token] = _value(next(tokens) if first == ":" else first, tokens)
    raise AssertionError("the text ends within a message")


def _value(token: str, tokens: Iterator[str]) -> Any:
    if token == "{":
        return _message(tokens)
    if token == "[":
        found = []
        while (token := next(tokens)) != "]":
            if token != ",":
                found.append(_value(token, tokens))
        return found
    if token.startswith('"'):
        return token[1:-1].encode("ascii").decode("unicode_escape").encode("latin-1").decode("utf-8")
    if token in ("true", "false"):
        return token == "true"
    return int(token) if re.fullmatch(r"-?\d+", token) else token


class StageModel:
    """One model of a repository: its graph, fed and read as its configuration says, with the state of each sequence."""

    def __init__(self, folder: Path) -> None:
        self.config = read_pbtxt((folder / "config.pbtxt").read_text())
        assert self.config["name"] == folder.name
        assert self.config["max_batch_size"] == 0
        self._folder = folder
        self._graph = onnxruntime.InferenceSession(folder / "1" / self.config["default_model_filename"])
        self._states: dict[int, dict[str, np.ndarray]] = {}
        batching = self.config.get("sequence_batching", {})
        self._links = batching.get("state", [])
        wanted = {each.name for each in self._graph.get_inputs()}
        assert wanted == {each["name"] for each in self.config["input"]} | {link["input_name"] for link in self._links}

    def infer(self, inputs: Mapping[str, np.ndarray], sequence: int = 0, start: bool = False) -> dict[str, np.ndarray]:
        """Return the outputs that the configuration names."""
        for entry in self.config["input"]:
            given = inputs[entry["name"]]
            assert (list(given.shape), given.dtype) == (entry["dims"], _TYPES[entry["data_type"]]), entry["name"]
        assert set(inputs) == {entry["name"] for entry in self.config["input"]}
        if start:
            self._states[sequence] = {link["input_name"]: self._initial(link) for link in self._links}
        state = self._states[sequence] if self._links else {}
        names = [each.name for each in self._graph.get_outputs()]
        outputs = dict(zip(names, self._graph.run(names, {**inputs, **state}), strict=True))
        if self._links:
            self._states[sequence] = {link["input_name"]: outputs[link["output_name"]] for link in self._links}
        for entry in self.config["output"]:
            made = outputs[entry["name"]]
            assert (list(made.shape), made.dtype) == (entry["dims"], _TYPES[entry["data_type"]]), entry["name"]
        return {entry["name"]: outputs[entry["name"]] for entry in self.config["output"]}

    def _initial(self, link: dict[str, Any]) -> np.ndarray:
        (given,) = link["initial_state"]
        shape, dtype = given["dims"], _TYPES[given["data_type"]]
        assert (shape, given["data_type"]) == (link["dims"], link["data_type"])
        if given.get("zero_data"):
            return np.zeros(shape, dtype)
        return np.frombuffer((self._folder / "initial_state" / given["data_file"]).read_bytes(), dtype).reshape(shape)


class StageClient:
    """A client of such a repository: it prepares pictures, puts clicks in network pixels, and resizes answers.

    It knows what ``mmms-deploy.json`` says, and nothing else of the bundle.
    """

    def __init__(self, repository: Path) -> None:
        self.described = json.loads((repository / "mmms-deploy.json").read_text())
        self.models = {name: StageModel(repository / name) for name in self.described["models"]}
        self._network = self.described["network"]
        self._rule = msgspec.convert(self._network["clicks"], ClickContract)
        self._size = tuple(self._network["size"])

    def features(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """What the stages before the clicks make of a picture."""
        rgb = prepare(image, msgspec.convert(self._network["image"], ImageSpec), self._size)
        values = {"rgb": rgb}
        for model in list(self.models.values())[:-1]:
            taken = {entry["name"] for entry in model.config["input"]}
            values |= model.infer({name: value for name, value in values.items() if name in taken})
        return values

    def click(
        self,
        features: Mapping[str, np.ndarray],
        size: tuple[int, int],
        click: tuple[float, float, int],
        *,
        sequence: int = 1,
        start: bool = False,
    ) -> np.ndarray:
        """The mask after a click more, (H0, W0) bool."""
        model = list(self.models.values())[-1]
        x, y = to_network(click[0], click[1], image=size, network=self._size, rule=self._rule.coordinates)
        taken = {entry["name"] for entry in model.config["input"]}
        inputs = {name: value for name, value in features.items() if name in taken}
        inputs["click"] = np.array([[x, y, click[2], 1]], np.float32)
        answer = model.infer(inputs, sequence, start)
        return NetworkAnswer(answer["logits" if "logits" in answer else "prob"][0, 0], self._rule).above(size)
