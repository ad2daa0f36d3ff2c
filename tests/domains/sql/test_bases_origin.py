"""The licence of a base is read from its card or its licence file, as they state it."""

from __future__ import annotations

import json

import pytest

from training.domains.sql.bases.origin import about, licence_of

CUSTOM = "---\nlicense: other\nlicense_name: qwen-research\nlicense_link: LICENSE\n---\n"


@pytest.mark.parametrize(("files", "stated"), [
    ({"README.md": "---\nlicense: apache-2.0\ntags: [x]\n---\n# A model\n"}, ("apache-2.0", "README.md")),
    ({"README.md": "---\r\nlicense:\r\n- mit\r\n- cc-by-4.0\r\n---\r\n"}, ("mit, cc-by-4.0", "README.md")),
    ({"README.md": CUSTOM}, ("other: qwen-research, LICENSE", "README.md")),
    ({"README.md": "# No front matter\nlicense: mit\n---\n", "LICENSE": "\n  Apache   License\nVersion 2.0"},
     ("Apache License", "LICENSE")),
    ({"README.md": "---\nlicense: [\n---\n", "LICENSE.txt": "=====\nLLAMA 3.2 COMMUNITY LICENSE AGREEMENT\n"},
     ("LLAMA 3.2 COMMUNITY LICENSE AGREEMENT", "LICENSE.txt")),
    ({"README.md": "---\nlicense: mit\n", "LICENSE": "\n \n"}, ("not stated", "")),
    ({"README.md": "---\nlicense: 5\n---\n"}, ("not stated", "")), ({}, ("not stated", "")),
])  # fmt: skip
def test_a_licence_is_what_the_card_states_else_the_first_line_of_its_text(tmp_path, files, stated):
    for name, text in files.items():
        (tmp_path / name).write_bytes(text.encode())
    assert licence_of(tmp_path) == stated


def test_a_base_has_its_folders_name_or_that_of_the_hub(tmp_path):
    folder = tmp_path / "my-base"
    folder.mkdir()
    assert about(folder).words == "my-base; licence: not stated"
    (folder / "origin.json").write_text(json.dumps({"model": "org/Base", "commit": "c" * 40}))
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    assert about(folder).words == f"org/Base, commit {'c' * 12}; licence: mit (README.md)"
