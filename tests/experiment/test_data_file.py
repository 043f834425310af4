"""Data files in the formats that people have: read, or named for what they are."""

from __future__ import annotations

import gzip
import importlib
import io
import json
import pickle
import sys
import tarfile
import zipfile

import pytest

from alignpro_lite.errors import InputError, MissingDependencyError
from alignpro_lite.experiment.data_file import numbered_rows
from alignpro_lite.experiment.prompts import Task, read_tasks
from alignpro_lite.train.reward.preferences import Preference, read_preferences

ROWS = [
    {"prompt": "Nenne einen Fluß.", "chosen": "Der Rhein.", "rejected": "Nein, é."},
    {"prompt": 'Say "hi",\nthen go.', "chosen": "hi", "rejected": "42"},
]
LINES = "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS)
PAIRS = [Preference(row["prompt"], (row["chosen"], row["rejected"])) for row in ROWS]


def table(delimiter):
    cells = [list(ROWS[0]), *(list(row.values()) for row in ROWS)]
    quoted = [[cell.replace('"', '""') for cell in row] for row in cells]
    return "\r\n".join(delimiter.join(f'"{cell}"' for cell in row) for row in quoted) + "\r\n"


def columns():
    return json.dumps({key: [row[key] for row in ROWS] for key in ROWS[0]})


READ = {
    "JSON lines with a byte-order mark": LINES.encode("utf-8-sig"),
    "UTF-16 of Windows": LINES.encode("utf-16"),
    "UTF-16, the other byte order": b"\xfe\xff" + LINES.encode("utf-16-be"),
    "UTF-16 without a mark": LINES.encode("utf-16-le"),
    "UTF-32": LINES.encode("utf-32"),
    "Windows line ends": LINES.replace("\n", "\r\n").encode(),
    "an array in UTF-16": json.dumps(ROWS).encode("utf-16"),
    "an object with data": json.dumps({"version": 1, "data": ROWS}, indent=2).encode(),
    "an object with rows": json.dumps({"rows": ROWS}).encode(),
    "an object of columns": columns().encode(),
    "an object of columns as pandas writes it": json.dumps(
        {key: {str(index): row[key] for index, row in enumerate(ROWS)} for key in ROWS[0]}
    ).encode(),
    "the rows of Hugging Face's viewer": json.dumps(
        {"rows": [{"row_idx": index, "row": row} for index, row in enumerate(ROWS)]}
    ).encode(),
    "carriage returns alone": LINES.replace("\n", "\r").encode(),
    "gzip in any name": gzip.compress(LINES.encode()),
    "gzip in gzip's name of UTF-16": gzip.compress(LINES.encode("utf-16")),
    "CSV": table(",").encode(),
    "CSV of Excel": table(";").encode("utf-8-sig"),
    "TSV of Excel": table("\t").encode("utf-16"),
    "gzipped CSV": gzip.compress(table(",").encode()),
}


@pytest.mark.parametrize("content", READ.values(), ids=READ)
@pytest.mark.parametrize("name", ["pairs.jsonl", "pairs", "pairs.txt"])
def test_a_format_is_read_whatever_the_name(tmp_path, content, name):
    """All but JSON and gzip in their own names, in UTF-8, used to be: Check the path."""
    (tmp_path / name).write_bytes(content)
    assert read_preferences(tmp_path / name, "jsonl") == (PAIRS, [])
    assert read_tasks(tmp_path / name, "prompt") == ([Task(row["prompt"]) for row in ROWS], [])


@pytest.mark.parametrize("wrap", [bytes, gzip.compress], ids=["plain", "gzipped"])
def test_parquet_is_read_with_its_lists_of_messages(tmp_path, wrap):
    pyarrow = importlib.import_module("pyarrow")
    parquet = importlib.import_module("pyarrow.parquet")
    sides = {key: chat("Name a river.", key) for key in ("chosen", "rejected")}
    expected = Preference("Name a river.", ("chosen", "rejected"))
    for rows, pairs in ((ROWS, PAIRS), ([sides], [expected])):
        file = io.BytesIO()
        parquet.write_table(pyarrow.Table.from_pylist(rows), file)
        (tmp_path / "p.parquet").write_bytes(wrap(file.getvalue()))
        assert read_preferences(tmp_path / "p.parquet", "jsonl") == (pairs, [])


@pytest.mark.parametrize("content", [b"PAR1", b"PAR1" + bytes(100) + b"PAR1"])
def test_parquet_that_cannot_be_read_says_so(tmp_path, content):
    (tmp_path / "p.parquet").write_bytes(content)
    with pytest.raises((InputError, MissingDependencyError), match="Parquet file"):
        read_preferences(tmp_path / "p.parquet", "jsonl")


def test_parquet_without_pyarrow_names_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    (tmp_path / "p.parquet").write_bytes(b"PAR1")
    with pytest.raises(MissingDependencyError, match="is a Parquet file") as caught:
        read_tasks(tmp_path / "p.parquet", "prompt")
    assert caught.value.cure == "Run `pip install pyarrow`."


class Trap:
    def __reduce__(self):
        return exec, ("raise SystemExit('a pickle was opened')",)


def zipped(*names, content=b"x"):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, content)
    return file.getvalue()


def tarred():
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("pairs.jsonl"))
    return file.getvalue()


NAMED = {
    "a zip archive of pairs.jsonl": zipped("pairs.jsonl"),
    "an Excel workbook": zipped("[Content_Types].xml", "xl/workbook.xml"),
    "a pickle of torch": zipped("archive/data.pkl", content=pickle.dumps(Trap())),
    "an archive of NumPy arrays": zipped("a.npy"),
    "a damaged zip archive": zipped("a")[:20],
    "a pickle.": pickle.dumps(Trap()),
    "a pickle": pickle.dumps(Trap(), protocol=2),
    "a tar archive": tarred(),
    "a tar archive.": gzip.compress(tarred()),
    "compressed with zstd": b"\x28\xb5\x2f\xfd\x04\x00",
    "compressed with xz": b"\xfd7zXZ\0\0",
    "an old Excel or Office file": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
    "an Arrow file as `datasets` saves it": b"\xff\xff\xff\xff\x18\x02\0\0",
    "a NumPy array": b"\x93NUMPY\x01\0",
    "an SQLite database": b"SQLite format 3\0",
    "a safetensors file": b'\x40\0\0\0\0\0\0\0{"a":{}}',
    "a pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
    "a web page": b"\n<!DOCTYPE html><html></html>",
    "an empty file": b"",
    "an empty file.": b"\xef\xbb\xbf \r\n",
    "byte 0xdf in line 1": LINES.encode("cp1252"),
    "a file that begins with 'How do I swim?'": b"How do I swim?\nHow do I fly?\n",
    "a row with 'question', 'answer'": b'{"question": "q", "answer": "a"}',
    "a row with 'frage', 'antwort'": b"frage,antwort\nq,a\n",
    "expected 3 cells, found 2": b"prompt,chosen,rejected\np,c\n",
    "a row with 'train', 'test'": json.dumps({"train": ROWS, "test": ROWS}).encode(),
}


@pytest.mark.parametrize(("found", "content"), NAMED.items(), ids=NAMED)
def test_what_cannot_be_read_is_named(tmp_path, found, content):
    """The error used to be the decoder's: can't decode byte 0x80 in position 0. Check the path."""
    (tmp_path / "pairs.jsonl").write_bytes(content)
    for read in (
        lambda path: read_preferences(path, "jsonl"),
        lambda path: read_tasks(path, "prompt"),
    ):
        with pytest.raises(InputError) as caught:
            read(tmp_path / "pairs.jsonl")
        assert found.rstrip(".") in caught.value.problem
        assert caught.value.cure != "Check the path."


def test_places_that_are_no_files_are_named(tmp_path):
    (tmp_path / "train.jsonl").touch()
    for path, found in (
        (tmp_path, "a folder with train.jsonl"),
        (tmp_path / "no.jsonl", "No such file"),
        (tmp_path / "a\0b", "null"),
    ):
        with pytest.raises(InputError, match=found):
            read_tasks(path, "prompt")


def test_cells_are_numbers_where_numbers_are_wanted(tmp_path):
    (tmp_path / "r.csv").write_text("prompt,answer,score\n7,8,4.5\n7,8,much\n" + "7,8,1\n" * 40)
    rows, bad = read_preferences(tmp_path / "r.csv", "ratings")
    assert rows[0] == Preference("7", ("8",), (4.5,))
    assert bad == ["row 3 left out, expected a number under 'score', found 'much'."]


def test_a_long_cell_and_a_table_of_one_column_are_read(tmp_path):
    (tmp_path / "p.csv").write_text("prompt\n" + "x" * 200_000 + "\n")
    assert read_tasks(tmp_path / "p.csv", "prompt") == ([Task("x" * 200_000)], [])


@pytest.mark.parametrize("cell", ["{x}", "{% if x %}", "{ }", "{'a': 1}"])
def test_a_cell_in_braces_makes_no_json_of_a_table(tmp_path, cell):
    """Regression: the second line began with a brace, and all rows were refused."""
    (tmp_path / "p.csv").write_text(f"prompt,chosen,rejected\n{cell},a,b\nc,d,e\n")
    rows = [Preference(cell, ("a", "b")), Preference("c", ("d", "e"))]
    assert read_preferences(tmp_path / "p.csv", "jsonl") == (rows, [])


def test_columns_of_one_name_are_refused(tmp_path):
    """Regression: the last one was used, and nobody was told."""
    (tmp_path / "p.csv").write_text("prompt,chosen,chosen,rejected\na,b,c,d\n")
    with pytest.raises(InputError, match="'chosen' more than once"):
        read_preferences(tmp_path / "p.csv", "jsonl")


def test_a_broken_line_says_what_is_wrong_with_it(tmp_path):
    (tmp_path / "p.jsonl").write_text(LINES + '\n{"prompt": "a" "chosen": 1}')
    with pytest.raises(InputError, match=r"Expecting ',' delimiter: line 1 column 16"):
        read_preferences(tmp_path / "p.jsonl", "jsonl")


def test_parquet_of_other_writers_is_read(tmp_path):
    """Spark stores text as bytes, DuckDB numbers as decimals; pandas has times no Python holds."""
    arrow, parquet = (pytest.importorskip(f"pyarrow{name}") for name in ("", ".parquet"))
    columns = {
        "prompt": arrow.array([b"Fl\xc3\xbcsse?"]),
        "answer": arrow.array(["Elbe."]),
        "score": arrow.array([4.5]).cast(arrow.decimal128(5, 2)),
        "image": arrow.array([b"\xff"]),
        "at": arrow.array([1_234_567_890_123_456_789], arrow.timestamp("ns")),
        "until": arrow.array([2**62], arrow.timestamp("us")),
    }
    parquet.write_table(arrow.table(columns), tmp_path / "r.parquet")
    rows, _ = read_preferences(tmp_path / "r.parquet", "ratings")
    assert rows == [Preference("Flüsse?", ("Elbe.",), (4.5,))]


def test_a_single_row_is_not_taken_for_a_list_of_rows(tmp_path):
    row = {"chosen": chat("Name a river.", "Elbe."), "rejected": chat("Name a river.", "No.")}
    (tmp_path / "p.jsonl").write_text(json.dumps(row))
    assert list(numbered_rows(tmp_path / "p.jsonl")) == [(1, row)]


def chat(question, answer):
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def shared(*turns):
    speakers = {"s": "system", "h": "human", "g": "gpt"}
    return [{"from": speakers[who], "value": text} for who, text in turns]


EXPECTED = Preference("Name a river.", ("Elbe.", "No."))
LONGER = Preference("a\n\nAssistant: b\n\nHuman: c", ("good", "bad"))
MESSAGES = {
    "the prompt inside": (
        {"chosen": chat("Name a river.", "Elbe."), "rejected": chat("Name a river.", "No.")},
        EXPECTED,
    ),
    "a prompt of messages": (
        {
            "prompt": chat("Name a river.", "")[:1],
            "chosen": chat("", "Elbe.")[1:],
            "rejected": chat("", "No.")[1:],
        },
        EXPECTED,
    ),
    "ShareGPT": (
        {
            "conversations": shared(("h", "Name a river.")),
            "chosen": shared(("g", "Elbe."))[0],
            "rejected": shared(("g", "No."))[0],
        },
        EXPECTED,
    ),
    "ShareGPT, the prompt inside": (
        {
            "chosen": shared(("h", "Name a river."), ("g", "Elbe.")),
            "rejected": shared(("h", "Name a river."), ("g", "No.")),
        },
        EXPECTED,
    ),
    "content in parts": (
        {
            "prompt": [{"role": "user", "content": [{"type": "text", "text": "Name a river."}]}],
            "chosen": chat("", "Elbe.")[1:],
            "rejected": chat("", "No.")[1:],
        },
        EXPECTED,
    ),
    "several turns": (
        {
            "chosen": [*chat("a", "b"), *chat("c", "good")],
            "rejected": [*chat("a", "b"), *chat("c", "bad")],
        },
        LONGER,
    ),
    "several turns, and the last question": (
        {
            "prompt": "c",
            "chosen": [*chat("a", "b"), *chat("c", "good")],
            "rejected": [*chat("a", "b"), *chat("c", "bad")],
        },
        LONGER,
    ),
    "a system": (
        {
            "chosen": shared(("s", "Be kind."), ("h", "q"), ("g", "c")),
            "rejected": shared(("s", "Be kind."), ("h", "q"), ("g", "r")),
        },
        Preference("Be kind.\n\nq", ("c", "r")),
    ),
}


@pytest.mark.parametrize(("row", "expected"), MESSAGES.values(), ids=MESSAGES)
@pytest.mark.parametrize("form", ["jsonl", "ultrafeedback", "hh"])
def test_lists_of_messages_are_read(tmp_path, row, expected, form):
    """Only the last message under `content` was read, and only beside a prompt of text."""
    (tmp_path / "m.jsonl").write_text(json.dumps(row))
    assert read_preferences(tmp_path / "m.jsonl", form) == ([expected], [])


@pytest.mark.parametrize("indent", [None, 1])
def test_messages_in_the_cells_of_a_table_are_read(tmp_path, indent):
    """Regression: white space between the brackets made one long text of the messages."""
    texts = ("Elbe.", "No.")
    cells = [json.dumps(chat("Name a river.", answer), indent=indent) for answer in texts]
    row = ",".join('"' + cell.replace('"', '""') + '"' for cell in cells)
    (tmp_path / "m.csv").write_text(f"chosen,rejected\n{row}\n")
    assert read_preferences(tmp_path / "m.csv", "jsonl") == ([EXPECTED], [])


def test_a_message_alone_in_a_cell_is_read_and_other_json_is_text(tmp_path):
    message = json.dumps(chat("Name a river.", "")[0]).replace('"', '""')
    (tmp_path / "m.csv").write_text(f'prompt,chosen,rejected\n"{message}",Elbe.,"[{{""a"": 1}}]"\n')
    expected = Preference("Name a river.", ("Elbe.", '[{"a": 1}]'))
    assert read_preferences(tmp_path / "m.csv", "jsonl") == ([expected], [])


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"chosen": chat("a", "b"), "rejected": chat("c", "d")}, "differ only in the last answer"),
        ({"chosen": chat("a", "b")[:1], "rejected": chat("a", "c")}, "at the end of 'chosen'"),
        ({"chosen": chat("a", ""), "rejected": chat("a", "c")}, "under a message"),
        ({"chosen": [{"role": "tool", "content": "x"}], "rejected": "r"}, "found one of 'tool'"),
        ({"chosen": "c", "rejected": "r"}, "under 'prompt', found a row with 'chosen', 'rejected'"),
        ({"prompt": chat("a", "b"), "chosen": "c", "rejected": "r"}, "ends with a message of the"),
        ({"prompt": "p", "chosen": [], "rejected": "r"}, "under 'chosen', found '[]'"),
        ({"prompt": "p", "chosen": [{"image": 1}], "rejected": "r"}, "found one of None"),
    ],
)
def test_messages_that_make_no_pair_are_bad_rows(tmp_path, row, reason):
    (tmp_path / "m.jsonl").write_text(json.dumps(row))
    with pytest.raises(InputError) as caught:
        read_preferences(tmp_path / "m.jsonl", "jsonl")
    assert reason in caught.value.problem


@pytest.mark.parametrize("key", ["prompt", "messages", "conversations"])
def test_a_conversation_is_a_prompt_by_its_first_question(tmp_path, key):
    said = shared(("s", "Be kind."), ("h", "Name a river. "), ("g", "Elbe."), ("h", "Another."))
    (tmp_path / "p.json").write_text(json.dumps([{key: said}]))
    assert read_tasks(tmp_path / "p.json", "prompt") == ([Task("Name a river.")], [])


def test_the_input_of_an_instruction_is_its_context(tmp_path):
    """Alpaca's key: its instructions used to be read without what they are about."""
    row = {"instruction": "Sum up.", "input": "Long.", "output": "L."}
    (tmp_path / "a.json").write_text(json.dumps([row]))
    assert read_tasks(tmp_path / "a.json", "instruction") == ([Task("Sum up.\nLong.")], [])
