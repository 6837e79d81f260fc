"""Encodings of text files, JSON files and XML files."""

import json
from pathlib import Path

import pytest

from boxwright.data.formats.opening import open_dataset
from boxwright.data.formats.parsing import parse_json, parse_xml
from boxwright.data.formats.texts import read_text
from boxwright.structures import InputError
from tests.support.dataset_files import voc_xml, write_coco_files, write_image

HELMET = "\u5b89\u5168\u5e3d"  # safety helmet
NAMES = {
    "gb2312": HELMET, "gbk": HELMET, "gb18030": HELMET, "big5": HELMET, "cp950": HELMET,
    "shift_jis": "\u30d8\u30eb\u30e1\u30c3\u30c8", "euc-jp": "\u732b", "cp932": "\u732b",
    "euc-kr": "\uace0\uc591\uc774", "windows-1251": "\u043a\u043e\u0442", "windows-1252": "g\u00e2teau \u20ac",
    "iso-8859-1": "B\u00e4r", "latin-1": "B\u00e4r", "koi8-r": "\u043a\u043e\u0442", "utf-8": HELMET,
    "utf-16": HELMET, "us-ascii": "cat",
}  # fmt: skip


@pytest.mark.parametrize("encoding", NAMES)
def test_xml_in_the_encoding_that_it_declares(tmp_path: Path, encoding: str) -> None:
    text = f'<?xml version="1.0" encoding="{encoding}"?>\n' + voc_xml("a.png", [(NAMES[encoding], 1, 1, 9, 9)])
    (tmp_path / "a.xml").write_bytes(text.encode(encoding))
    write_image(tmp_path / "a.png")
    index = open_dataset(tmp_path)
    assert index.classes.names == (NAMES[encoding],)
    assert index.annotations(0).boxes.tolist() == [[0, 0, 9, 9]]


def test_windows_calls_the_larger_encoding_gb2312(tmp_path: Path) -> None:
    text = '<?xml version="1.0" encoding="gb2312"?><annotation><folder>\u9555</folder></annotation>'
    (tmp_path / "a.xml").write_bytes(text.encode("gbk"))  # a character that gbk has and gb2312 lacks
    assert parse_xml(tmp_path / "a.xml").findtext("folder") == "\u9555"


def test_utf8_that_is_declared_as_utf16(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(f'<?xml version="1.0" encoding="utf-16"?><annotation>{HELMET}</annotation>')
    assert parse_xml(tmp_path / "a.xml").text == HELMET


@pytest.mark.parametrize(
    ("declared", "real", "message"),
    [
        ("gb2312", "utf-8", r"a\.xml, line 1: declares the encoding gb2312 but holds UTF-8; correct"),
        ("iso-8859-1", "utf-8", "declares the encoding iso-8859-1 but holds UTF-8"),
        ("utf-8", "gbk", r"a\.xml, line 2: byte \d+ is not UTF-8 text; save it as UTF-8"),
        ("gb2312", "latin-1", "declares the encoding gb2312 but holds another one; save it as UTF-8"),
        ("klingon", "utf-8", "declares the encoding 'klingon', which is not known; save it as UTF-8"),
        ("hex", "utf-8", "declares the encoding 'hex', which is not known"),
    ],
)
def test_xml_whose_declaration_is_wrong(tmp_path: Path, declared: str, real: str, message: str) -> None:
    name = "\u00e9" if real == "latin-1" else HELMET
    text = f'<?xml version="1.0" encoding="{declared}"?>\n<annotation>{name}</annotation>'
    (tmp_path / "a.xml").write_bytes(text.encode(real))
    with pytest.raises(InputError, match=message):
        parse_xml(tmp_path / "a.xml")


def test_deep_xml(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text("<annotation>\n" + "<a>" * 100_000)
    with pytest.raises(InputError, match=r"a\.xml, line 2: more than 100 elements in one another"):
        parse_xml(tmp_path / "a.xml")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le"])
def test_json_and_text_in_any_unicode_encoding(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.json").write_bytes(json.dumps({"name": HELMET}, ensure_ascii=False).encode(encoding))
    assert parse_json(tmp_path / "a.json") == {"name": HELMET}
    (tmp_path / "a.txt").write_bytes(f"images/{HELMET}.jpg\n".encode(encoding))
    assert read_text(tmp_path / "a.txt") == f"images/{HELMET}.jpg\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1,\n2", r"a\.json, line 2, column 2: not valid JSON .*truncated"),
        ('{"a": "b', "line 1, column 7: not valid JSON .*truncated"),
        ("", r"a\.json: the file is empty"),
        ('{"id": 1}\n{"id": 2}\n', r"line 2, column 1: a second JSON value begins \(JSON Lines\?\)"),
        ('{"images": [],\n"images": [1]}', 'the key "images" stands twice in {"images": .1.}; remove one'),
        ("[" * 100_000, "nested too deeply"),
        (f"[\n{'9' * 5000}]", "line 2: a number of more than 4300 digits"),
        ("{'id': 1}", "line 1, column 2: not valid JSON"),
    ],
)
def test_json_that_cannot_be_read(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(InputError, match=message):
        parse_json(tmp_path / "a.json")


def test_text_that_is_not_unicode(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b'{\n"name": "' + HELMET.encode("gbk") + b'"}')
    for read in (parse_json, read_text):
        with pytest.raises(InputError, match=r"a\.json, line 2: byte 11 is not UTF-8 text; save it as UTF-8"):
            read(tmp_path / "a.json")
    with pytest.raises(InputError, match="this is a folder"):
        read_text(tmp_path)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32", "utf-32-le", "utf-8-sig"])
def test_coco_in_any_unicode_encoding_is_found(tmp_path: Path, encoding: str) -> None:
    file = write_coco_files(tmp_path)
    file.write_bytes(file.read_text().encode(encoding))
    assert len(open_dataset(tmp_path)) == 2
