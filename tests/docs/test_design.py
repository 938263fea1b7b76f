"""The page on the design names files and rooms that exist, and names that they define."""

import re

from pages import DOCS, ROOT

TEXT = (DOCS / "design.md").read_text(encoding="utf-8")
PACKAGE = ROOT / "trak"


def test_every_file_that_is_named_exists():
    named = set(re.findall(r"`((?:\w+/)+\w+\.(?:py|md))`", TEXT))
    assert len(named) > 25
    missing = [path for path in named if not (PACKAGE / path).exists() and not (ROOT / path).exists()]
    assert not missing


def test_the_rooms_are_those_of_the_package_in_the_order_of_imports():
    from test_imports import ABOVE, ORDER

    (tree,) = re.findall(r"```none\ntrak/\n(.*?)```", TEXT, re.DOTALL)
    rooms = re.findall(r"^  (\w+)/", tree, re.MULTILINE)
    assert tuple(rooms[: len(ORDER)]) == ORDER
    assert set(rooms[len(ORDER) :]) == ABOVE


def test_the_path_of_a_batch_names_what_the_files_define():
    rows = re.findall(r"^\| (.+?) \| (.+?) \|$", TEXT[TEXT.index("| hop |") :], re.MULTILINE)[2:]
    for hop, where in rows:
        files = [PACKAGE / path for path in re.findall(r"`(\w+/\w+\.py)`", where)]
        there = "".join(path.read_text(encoding="utf-8") for path in files)
        names = re.findall(r"`(?:\w+\.)*(\w+)\(?", hop)
        assert any(re.search(rf"\b(?:def|class) {name}\b", there) for name in names), hop
