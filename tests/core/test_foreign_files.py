"""The reader of foreign files returns what is there, or says in one line what is wrong with which file."""

import json
import os
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caco_assets.core.errors import UserError
from caco_assets.core.foreign_files import (
    MAX_DEPTH,
    parse_json,
    parse_text,
    parse_yaml,
    read_bytes,
    read_json,
    read_object,
    read_text,
    read_yaml,
)

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=4),
    max_leaves=20,
)
ENCODINGS = st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"])
LAUGHS = ["a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]", *(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in pairwise("abcdefghi"))]


@given(PLAIN, ENCODINGS)
def test_json_in_any_encoding_that_names_itself_is_read(value, encoding):
    assert parse_json(json.dumps(value, ensure_ascii=False).encode(encoding), "x.json") == value


@given(
    st.text(st.characters(codec="utf-8", exclude_characters="\ufeff")), st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"])
)
def test_a_byte_order_mark_names_the_encoding_and_is_no_part_of_the_text(text, encoding):
    assert parse_text(text.encode(encoding), "x.txt") == text


@given(st.binary() | PLAIN.map(lambda value: json.dumps(value).encode()[:-1]))
def test_any_bytes_are_a_value_or_one_line_that_names_the_file(data):
    for parse in (parse_text, parse_json, parse_yaml):
        said = ""
        try:
            parse(data, "place/x")
        except UserError as error:
            said = str(error)
        assert not said or (said.startswith("place/x: ") and "\n" not in said)


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 100_000])
@pytest.mark.parametrize(("start", "end"), [("[", "]"), ('{"a":', "}")])
def test_deep_nesting_is_refused(depth, start, end):
    data = (start * depth + "1" + end * depth).encode()
    with pytest.raises(UserError, match=r"x: not readable as JSON \(nested more than 100 levels deep"):
        parse_json(data, "x")
    with pytest.raises(UserError, match=r"x: not readable as YAML \(nested more than 100 levels deep"):
        parse_yaml(data, "x")


def test_nesting_as_people_write_it_is_read():
    assert parse_json(b"[" * 20 + b"]" * 20, "x")
    assert parse_yaml(b"a: &b {c: 1}\nd: {<<: *b, e: [*b, *b]}", "x") == {"a": {"c": 1}, "d": {"c": 1, "e": [{"c": 1}] * 2}}


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [*a]",
        "a: &a {b: *a}",
        "\n".join(LAUGHS),
        f"a: &a [{','.join(['1'] * 2000)}]\nb: [{','.join(['*a'] * 2000)}]",
    ],
    ids=["list in itself", "mapping in itself", "billion laughs", "wide"],
)
def test_aliases_that_expand_beyond_the_file_are_refused(text):
    with pytest.raises(UserError, match=r"x: not readable as YAML \(.*alias"):
        parse_yaml(text.encode(), "x")


@pytest.mark.parametrize(
    "text",
    ["!!python/object/apply:os.system [ls]", "? [a]\n: b", "a: 2026-13-41", "a: [", "\x00", "9" * 5000, "? {a: b}\n: c"],
)
def test_odd_yaml_is_refused_in_one_line(text):
    with pytest.raises(UserError, match=r"^x: not readable as YAML"):
        parse_yaml(text.encode(), "x")


@pytest.mark.parametrize("text", ['"\\ud800"', '{"\\udc00": 1}', "9" * 5000, "", "{"])
def test_odd_json_is_refused_in_one_line(text):
    with pytest.raises(UserError, match=r"^x: not readable as JSON"):
        parse_json(text.encode(), "x")


@pytest.mark.parametrize("read", [read_bytes, read_text, read_json, read_object, read_yaml])
def test_what_is_no_readable_file_is_named(tmp_path: Path, read):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    for name, reason in {
        "absent": "there is no such file",
        "folder": "a folder, where a file belongs",
        "pipe": "a device or a pipe",
        "folder/x\0y": "not readable",
        "n" * 300: "not readable",
        "loop": "not readable",
    }.items():
        with pytest.raises(UserError, match=f"{name}: {reason}.*; ask them$"):
            read(tmp_path / name, "ask them")


@pytest.mark.parametrize("read", [read_bytes, read_text, read_json, read_object, read_yaml])
def test_a_file_larger_than_the_bound_is_not_read(tmp_path: Path, read):
    with (tmp_path / "x").open("wb") as stream:
        stream.truncate(1 << 40)
    with pytest.raises(UserError, match=rf"x: {1 << 40} bytes, at most \d+ are read"):
        read(tmp_path / "x")


def test_another_encoding_is_named_with_its_first_byte(tmp_path: Path):
    (tmp_path / "x").write_bytes("Föhr".encode("latin-1"))
    with pytest.raises(UserError, match=r"x: not text in UTF-8 \(byte 1 is 0xf6\); save it as UTF-8"):
        read_text(tmp_path / "x")


def test_an_object_is_wanted_where_an_object_belongs(tmp_path: Path):
    (tmp_path / "x").write_text("[1]")
    with pytest.raises(UserError, match="x: holds a list, where an object"):
        read_object(tmp_path / "x")
