"""What a graph may name outside of itself: files of its bundle that the manifest lists, at every place of a graph."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from google.protobuf.descriptor import Descriptor
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper

from mmms_deploy.bundle import external_data
from mmms_deploy.bundle.external_data import CHILDREN, LOCATION_FIELD, SINGLE, TEXTS, check_graph
from mmms_deploy.errors import BundleCorruptError

SIZES = {"graph.onnx": 10, "weights.bin": 1000, "other.bin": 50}


def tensor(location: str | None = None, name: str = "w", **entries: str) -> TensorProto:
    """A tensor of two floats, in the graph or, with a location, in a file."""
    made = numpy_helper.from_array(np.zeros(2, np.float32), name)
    if location is not None:
        made.ClearField("raw_data")
        made.data_location = TensorProto.EXTERNAL
        for key, value in {"location": location, **entries}.items():
            made.external_data.add(key=key, value=value)
    return made


def body(inside: TensorProto) -> onnx.GraphProto:
    return helper.make_graph([], "body", [], [], [inside])


def sparse(values: TensorProto, indices: TensorProto | None = None) -> onnx.SparseTensorProto:
    made = onnx.SparseTensorProto(values=values, dims=[4])
    made.indices.CopyFrom(indices or numpy_helper.from_array(np.array([0, 1], np.int64), "i"))
    return made


def nested(inside: TensorProto, levels: int) -> onnx.GraphProto:
    graph = body(inside)
    for _ in range(levels):
        graph = helper.make_graph([helper.make_node("If", ["c"], ["y"], then_branch=graph)], "outer", [], [])
    return graph


def attribute(model: ModelProto, **attributes: object) -> None:
    model.graph.node.append(helper.make_node("Op", [], ["y"], **attributes))


def in_function(model: ModelProto, node: onnx.NodeProto) -> None:
    model.functions.append(helper.make_function("d", "f", [], [], [node], [helper.make_opsetid("", 21)]))


def default_of_function(model: ModelProto, inside: TensorProto) -> None:
    function = helper.make_function("d", "f", [], [], [], [helper.make_opsetid("", 21)])
    function.attribute_proto.append(helper.make_attribute("a", inside))
    model.functions.append(function)


PLACES: dict[str, Callable[[ModelProto, TensorProto], object]] = {
    "initializer": lambda model, inside: model.graph.initializer.append(inside),
    "sparse values": lambda model, inside: model.graph.sparse_initializer.append(sparse(inside)),
    "sparse indices": lambda model, inside: model.graph.sparse_initializer.append(sparse(tensor(), inside)),
    "attribute": lambda model, inside: attribute(model, value=inside),
    "attribute of tensors": lambda model, inside: attribute(model, values=[tensor(), inside]),
    "attribute, sparse": lambda model, inside: attribute(model, value=sparse(inside)),
    "attribute of sparse tensors": lambda model, inside: attribute(model, values=[sparse(tensor()), sparse(inside)]),
    "subgraph": lambda model, inside: attribute(model, body=body(inside)),
    "subgraphs": lambda model, inside: attribute(model, branches=[body(tensor()), body(inside)]),
    "subgraph far down": lambda model, inside: attribute(model, body=nested(inside, 20)),
    "function": lambda model, inside: in_function(model, helper.make_node("Constant", [], ["y"], value=inside)),
    "subgraph of a function": lambda model, inside: in_function(
        model, helper.make_node("If", ["c"], ["y"], then_branch=body(inside))
    ),
    "default of a function": default_of_function,
    "training, first": lambda model, inside: model.training_info.add().initialization.CopyFrom(body(inside)),
    "training, algorithm": lambda model, inside: model.training_info.add().algorithm.CopyFrom(body(inside)),
}


def model_with(place: str, inside: TensorProto) -> bytes:
    model = helper.make_model(helper.make_graph([], "g", [], [], [tensor(name="own")]))
    PLACES[place](model, inside)
    return model.SerializeToString()


def checked(folder: Path, content: bytes, name: str = "graph.onnx") -> frozenset[str]:
    (folder / name).write_bytes(content)
    return check_graph(folder / name, SIZES)


@pytest.mark.parametrize("place", PLACES)
def test_every_place_is_found(tmp_path: Path, place: str) -> None:
    assert checked(tmp_path, model_with(place, tensor())) == frozenset()
    content = model_with(place, tensor("weights.bin", offset="992", length="8"))
    assert checked(tmp_path, content) == {"weights.bin"}
    with pytest.raises(BundleCorruptError, match=r"'unlisted.bin', which the manifest does not list"):
        checked(tmp_path, model_with(place, tensor("unlisted.bin")))


@pytest.mark.parametrize(
    "location",
    [
        "../weights.bin",
        "/etc/passwd",
        "./weights.bin",
        "sub/weights.bin",
        "",
        ".",
        "*/_ORT_MEM_ADDR_/*",
        "weights.bin\0",
        "weights.bin\n",
        "graph.onnx",
        "wëights.bin",
    ],
)
def test_a_location_that_is_no_listed_file(tmp_path: Path, location: str) -> None:
    with pytest.raises(BundleCorruptError, match="does not list"):
        checked(tmp_path, model_with("initializer", tensor(location)))


def test_a_location_counts_wherever_the_tensor_says_that_its_data_is(tmp_path: Path) -> None:
    """Libraries disagree on which field decides."""
    inside = tensor("unlisted.bin")
    inside.data_location = TensorProto.DEFAULT
    with pytest.raises(BundleCorruptError, match="does not list"):
        checked(tmp_path, model_with("initializer", inside))
    nowhere = tensor()
    nowhere.data_location = TensorProto.EXTERNAL
    with pytest.raises(BundleCorruptError, match="does not list"):
        checked(tmp_path, model_with("initializer", nowhere))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"offset": "993", "length": "8"}, "takes 8 bytes at 993 from weights.bin, which has 1000"),
        ({"offset": "1001"}, "takes 0 bytes at 1001"),
        ({"length": "1001"}, "takes 1001 bytes at 0"),
        ({"length": "9" * 19}, "takes 9999"),
        ({"length": "9" * 20}, "the length of external data"),
        ({"offset": "-8"}, "the offset of external data"),
        ({"offset": " 8"}, "the offset of external data"),
        ({"offset": "0x8"}, "the offset of external data"),
        ({"offset": "٣"}, "the offset of external data"),
        ({"prepacked_0": "x"}, "has b'prepacked_0'"),
        ({"basepath": "/"}, "has b'basepath'"),
    ],
)
def test_a_part_that_the_file_does_not_have(tmp_path: Path, entries: dict[str, str], message: str) -> None:
    with pytest.raises(BundleCorruptError) as caught:
        checked(tmp_path, model_with("initializer", tensor("weights.bin", **entries)))
    assert message in caught.value.given


def test_a_checksum_is_allowed(tmp_path: Path) -> None:
    inside = tensor("weights.bin", offset="0", length="8", checksum="0" * 40)
    assert checked(tmp_path, model_with("initializer", inside)) == {"weights.bin"}


def field(number: int, content: bytes) -> bytes:
    assert number < 16
    assert len(content) < 128
    return bytes([number << 3 | 2, len(content)]) + content


def entry(key: bytes, value: bytes) -> bytes:
    return field(13, field(1, key) + field(2, value))


GOOD = entry(b"location", b"weights.bin")
DATA = bytes([LOCATION_FIELD << 3, 1])
MODELS = {
    "a tensor that is there twice, merged by protobuf": field(
        7, field(1, field(5, field(5, GOOD) + field(5, DATA + entry(b"offset", b"2000"))))
    ),
    "two graphs, merged by protobuf": field(7, field(5, GOOD + DATA)) + field(7, field(5, DATA)),
    "two locations, of which libraries take another one": field(
        7, field(5, GOOD + entry(b"location", b"other.bin") + DATA)
    ),
    "two values in an entry": field(
        7, field(5, field(13, field(1, b"location") + field(2, b"weights.bin") + field(2, b"other.bin")) + DATA)
    ),
    "a group": field(7, field(5, GOOD + DATA)) + bytes([1 << 3 | 3, 1 << 3 | 4]),
    "a graph of another wire type": bytes([7 << 3, 1]),
    "field 0": field(7, b"") + bytes([2, 0]),
    "a length beyond the end": bytes([7 << 3 | 2, 10]),
    "a length beyond its message": field(7, bytes([1 << 3 | 2, 5])) + b"12345",
    "a number without an end": bytes([8]) + b"\xff" * 11,
    "a tag without an end": b"\xff" * 6,
    "a cut number": bytes([8, 0x80]),
    "a cut fixed number": field(7, b"") + bytes([1 << 3 | 1, 0, 0]),
    "no graph": bytes([8, 10]),
    "nothing": b"",
    "a text": b"<?xml version='1.0'?><net></net>",
    "a program of a provider": field(7, field(1, field(4, b"EPContext"))),
    "a long key": b"\x3a\xa0\x84\x01" + b"\x2a\x9c\x84\x01\x6a\x98\x84\x01\x0a\x94\x84\x01" + b"x" * 0x4214,
}


@pytest.mark.parametrize("case", MODELS)
def test_what_libraries_could_read_differently_is_refused(tmp_path: Path, case: str) -> None:
    with pytest.raises(BundleCorruptError, match=r"no readable ONNX graph|does not list"):
        checked(tmp_path, MODELS[case])


def test_what_is_harmless_in_these_forms_is_read(tmp_path: Path) -> None:
    """The parts that the cases above are made of; numbers may be longer than they need to be."""
    assert checked(tmp_path, field(7, field(5, GOOD + DATA))) == {"weights.bin"}
    assert checked(tmp_path, bytes([7 << 3 | 0x80 | 2, 0, 0x80, 0])) == frozenset()


def test_a_name_that_chooses_another_format(tmp_path: Path) -> None:
    content = model_with("initializer", tensor())
    for name in ("graph.ort", "graph.xml", "graph", "graph.ONNX"):
        with pytest.raises(BundleCorruptError, match=r"does not end in \.onnx"):
            checked(tmp_path, content, name)


def test_the_limits_of_time_and_depth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = b""
    for _ in range(60):
        deep = b"\x32" + _length(deep) + deep
        deep = b"\x2a" + _length(deep) + deep
        deep = b"\x0a" + _length(deep) + deep
    with pytest.raises(BundleCorruptError, match="nested more than 100 levels"):
        checked(tmp_path, b"\x3a" + _length(deep) + deep)
    monkeypatch.setattr(external_data, "_MOST_FIELDS", 1000)
    with pytest.raises(BundleCorruptError, match="more than 1000 fields"):
        checked(tmp_path, b"\x08\x01" * 1001)
    with (tmp_path / "large.onnx").open("wb") as stream:
        stream.truncate(1 << 31)
    with pytest.raises(BundleCorruptError, match="more than a message of protobuf can have"):
        check_graph(tmp_path / "large.onnx", SIZES)


def _length(content: bytes) -> bytes:
    value, encoded = len(content), b""
    while value > 127:
        encoded, value = encoded + bytes([value & 127 | 128]), value >> 7
    return encoded + bytes([value])


def test_data_is_skipped_and_not_read(tmp_path: Path) -> None:
    """A graph with many bytes of weights, more than are looked at, in every form."""
    big = numpy_helper.from_array(np.ones(300_000, np.float32), "big")
    floats = helper.make_tensor("floats", TensorProto.FLOAT, [100_000], np.ones(100_000))
    model = helper.make_model(
        helper.make_graph([helper.make_node("Constant", [], ["y"], value=big)], "g", [], [], [big, floats, big])
    )
    model.graph.initializer.append(tensor("weights.bin"))
    assert checked(tmp_path, model.SerializeToString()) == {"weights.bin"}


# --- compared with the package onnx -----------------------------------------------------------------------------------


def reachable(message: Descriptor) -> Iterator[Descriptor]:
    """Yield every message of onnx.proto below one, and itself."""
    found, rest = {message.name: message}, [message]
    while rest:
        for one in rest.pop().fields:
            if one.message_type is not None and one.message_type.name not in found:
                found[one.message_type.name] = one.message_type
                rest.append(one.message_type)
    yield from found.values()


def test_the_field_numbers_are_those_of_onnx() -> None:
    """Also finds a field of a newer onnx that leads to tensors and is not known here."""
    messages = {message.name: message for message in reachable(ModelProto.DESCRIPTOR)}
    leading = {external_data.TENSOR}
    while (
        more := {
            name
            for name, message in messages.items()
            if any(one.message_type and one.message_type.name in leading for one in message.fields)
        }
        - leading
    ):
        leading |= more
    assert leading == CHILDREN.keys()
    for name in leading:
        children = {
            one.number: one.message_type.name
            for one in messages[name].fields
            if one.message_type and one.message_type.name in leading
        }
        if name == external_data.TENSOR:
            children = {13: external_data.ENTRY}
            assert messages[name].fields_by_name["external_data"].number == 13
            assert messages[name].fields_by_name["data_location"].number == LOCATION_FIELD
        assert CHILDREN[name] == children, name
        once = {number for number in children if not messages[name].fields_by_number[number].is_repeated}
        assert SINGLE.get(name, frozenset()) == once, name
    assert {
        external_data.NODE: {messages[external_data.NODE].fields_by_name["op_type"].number},
        external_data.ENTRY: {messages[external_data.ENTRY].fields_by_name[key].number for key in ("key", "value")},
    } == TEXTS


def locations(message: object) -> Iterator[str]:
    """Yield every external location below a message, as onnx itself reads it."""
    if isinstance(message, TensorProto):
        yield from (one.value for one in message.external_data if one.key == "location")
    for descriptor, value in message.ListFields():  # type: ignore[attr-defined]
        if descriptor.message_type is not None:
            for part in value if descriptor.is_repeated else [value]:
                yield from locations(part)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(sorted(PLACES)), st.sampled_from([None, "weights.bin", "other.bin"])), max_size=6
    )
)
def test_the_same_is_found_as_by_onnx(tmp_path_factory: pytest.TempPathFactory, parts: list[tuple[str, str]]) -> None:
    model = helper.make_model(helper.make_graph([], "g", [], []))
    for place, location in parts:
        PLACES[place](model, tensor(location))
    found = checked(tmp_path_factory.getbasetemp(), model.SerializeToString())
    assert found == set(locations(model))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_changed_graph_is_refused_or_read_as_by_onnx(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """No damage makes it overlook a file that onnx would read."""
    place = data.draw(st.sampled_from(sorted(PLACES)))
    content = bytearray(model_with(place, tensor("weights.bin", offset="8")))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = checked(tmp_path_factory.getbasetemp(), bytes(content))
    except BundleCorruptError:
        return
    try:
        model = onnx.load_model_from_string(bytes(content))
    except Exception:  # stricter than this reader, for instance on texts that are no UTF-8
        return
    assert found == set(locations(model))


def test_big_endian_bytes_are_nothing(tmp_path: Path) -> None:
    with pytest.raises(BundleCorruptError):
        checked(tmp_path, struct.pack(">Q", 7) * 10)
