"""Reading questions from files of every known form, with the reason and the place of every row that holds none."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from training.domains.sql.questions.reading import databases_in, read
from training.errors import DataError

SCHEMA = "CREATE TABLE singer (id INT, name TEXT);\nINSERT INTO singer VALUES (1, 'a; b');\nCREATE TABLE song (id INT);"
SEED_TEXT = f"Database: concert_singer\n\nSchema:\n{SCHEMA}\n\nQuestion: How many singers\ndo we have?"


def jsonl(path: Path, *rows) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def chat(*messages: tuple[str, str]) -> dict:
    return {"messages": [{"role": role, "content": content} for role, content in messages]}


def only(path: Path):
    questions, refused = read(path)
    assert not refused, refused
    assert len(questions) == 1
    return questions[0]


def test_a_chat_with_database_schema_and_question_is_split_into_parts(tmp_path):
    row = chat(
        ("system", "You write SQL."), ("user", SEED_TEXT), ("assistant", "```sql\nSELECT COUNT(*) FROM singer;\n```")
    )
    found = only(jsonl(tmp_path / "seed.jsonl", row))
    assert (found.id, found.place) == ("seed.jsonl:1", "seed.jsonl:1")
    assert found.database == "concert_singer" and found.schema_text == SCHEMA
    assert found.question == "How many singers\ndo we have?"
    assert found.sql == "SELECT COUNT(*) FROM singer;"


@pytest.mark.parametrize(("messages", "question", "schema", "evidence"), [
    ([("user", "How many?")], "How many?", None, ""),
    ([("system", f"Use this schema.\n{SCHEMA}"), ("user", "How many?")], "How many?", SCHEMA, ""),
    ([("system", f"### Schema:\n{SCHEMA}"), ("user", "### Question: How many?\n### SQL:")], "How many?", SCHEMA, ""),
    ([("user", f"Hint: a is b\nQuestion: How many?\nSchema: {SCHEMA}")], "How many?", SCHEMA, "a is b"),
    ([("user", f"Translate to SQL.\n{SCHEMA}\nQuestion: How many?\nAnswer:")], "How many?", SCHEMA, ""),
    ([("user", f"How many?\n\n{SCHEMA}")], "How many?", SCHEMA, ""),
    ([("user", f"{SCHEMA}\n\nHow many?")], "How many?", SCHEMA, ""),
])  # fmt: skip
def test_chats_of_other_forms(tmp_path, messages, question, schema, evidence):
    found = only(jsonl(tmp_path / "q.jsonl", chat(*messages, ("assistant", "SELECT 1"))))
    assert (found.question, found.schema_text, found.evidence) == (question, schema, evidence)


@pytest.mark.parametrize("row", [
    {"question": "How many?", "sql": "SELECT 1", "db_id": "d", "schema": SCHEMA, "evidence": "e", "note": 3},
    {"question": " How many? ", "query": "SELECT 1 ", "database": "d", "context": SCHEMA, "evidence": "e", "note": 3},
    {"question": "How many?", "SQL": "```sql\nSELECT 1\n```", "db_id": "d", "schema": SCHEMA,
     "evidence": "e", "note": 3},
    {"question": "How many?", "query": "SELECT 1", "sql": {"select": []}, "db_id": "d", "schema": SCHEMA,
     "evidence": "e", "note": 3},
])  # fmt: skip
def test_columns_by_any_of_their_names(tmp_path, row):
    """The last is Spider's row, whose `sql` is a parsed query."""
    found = only(jsonl(tmp_path / "q.jsonl", row))
    parts = (found.question, found.sql, found.database, found.schema_text, found.evidence)
    assert parts == ("How many?", "SELECT 1", "d", SCHEMA, "e")
    assert found.extra == {"note": 3}


@pytest.mark.parametrize("row", [
    {"conversations": [{"from": "human", "value": SEED_TEXT}, {"from": "gpt", "value": "SELECT 1"}]},
    {"system": "You write SQL.", "conversations": [{"role": "user", "content": SEED_TEXT},
                                                   {"role": "assistant", "content": "SELECT 1"}]},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": SEED_TEXT}]},
                  {"role": "assistant", "content": "SELECT 1"}]},
    {"prompt": SEED_TEXT, "completion": " SELECT 1"},
    {"prompt": [{"role": "user", "content": SEED_TEXT}],
     "completion": [{"role": "assistant", "content": "```sql\nSELECT 1\n```"}]},
    {"instruction": "Write a SQL query.", "input": SEED_TEXT, "output": "SELECT 1"},
    {"instruction": "How many singers\ndo we have?", "input": SCHEMA, "output": "SELECT 1", "db_id": "concert_singer"},
    {"instruction": SEED_TEXT, "input": "", "output": "SELECT 1"},
    {"Question": "How many singers\ndo we have?", "Answer": "SELECT 1", "Context": SCHEMA, "DB_ID": "concert_singer"},
    {"sql_prompt": "How many singers\ndo we have?", "sql": "SELECT 1", "sql_context": SCHEMA, "db": "concert_singer"},
])  # fmt: skip
def test_rows_of_data_sets_for_fine_tuning(tmp_path, row):
    """ShareGPT, TRL's prompts and completions, Alpaca, sql-create-context, and a table with other names."""
    found = only(jsonl(tmp_path / "q.jsonl", row))
    assert (found.database, found.schema_text, found.sql) == ("concert_singer", SCHEMA, "SELECT 1")
    assert found.question == "How many singers\ndo we have?" and not found.extra


def test_of_an_instruction_and_an_input_without_headings_nothing_is_lost(tmp_path):
    row = {"instruction": "Translate to SQL.", "input": "How many?", "output": "SELECT 1"}
    assert only(jsonl(tmp_path / "q.jsonl", row)).question == "Translate to SQL.\nHow many?"


INST, CHATML = (
    "<s>[INST] {user} [/INST] {sql}</s>",
    (
        "<|im_start|>system\nYou write SQL.<|im_end|>\n<|im_start|>user\n{user}<|im_end|>\n"
        "<|im_start|>assistant\n{sql}<|im_end|>\n"
    ),
)


@pytest.mark.parametrize("form", [
    INST, CHATML, INST.removeprefix("<s>").removesuffix("</s>"), INST.replace("</s>", " </s>\n"), "<s>" + CHATML,
    INST.replace("[INST]", "[INST] <<SYS>>\nYou write SQL.\n<</SYS>>\n"), CHATML[CHATML.index("<|im_start|>user") :],
    CHATML.removesuffix("<|im_end|>\n"), CHATML.replace("user\n", "user ") + "<|endoftext|>",
    INST.replace("{sql}", "```sql\n{sql}\n```"),
    "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nYou write SQL.<|eot_id|><|start_header_id|>user"
    "<|end_header_id|>\n\n{user}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n{sql}<|eot_id|>",
    "<bos><start_of_turn>user\n{user}<end_of_turn>\n<start_of_turn>model\n{sql}<end_of_turn>\n",
    "Below is an instruction.\n\n### Instruction:\nYou write SQL.\n\n### Input:\n{user}\n\n### Response:\n{sql}</s>",
])  # fmt: skip
def test_a_conversation_in_one_text_is_split_into_parts(tmp_path, form):
    text = form.format(user=SEED_TEXT, sql="SELECT COUNT(*) FROM singer;")
    found = only(jsonl(tmp_path / "train_postgres.jsonl", {"text": text, "note": 3}))
    assert (found.database, found.schema_text) == ("concert_singer", SCHEMA)
    assert (found.question, found.sql) == ("How many singers\ndo we have?", "SELECT COUNT(*) FROM singer;")
    assert found.extra == {"note": 3}


@pytest.mark.parametrize("user", ["How many?", "<<SYS>>\nYou write SQL.\n<</SYS>>\n\nHow many?"])
def test_a_text_without_headings_is_the_question_and_columns_name_its_database(tmp_path, user):
    row = {"text": INST.format(user=user, sql="SELECT 1"), "db_id": "d", "schema": SCHEMA}
    found = only(jsonl(tmp_path / "q.jsonl", row))
    assert (found.question, found.sql, found.database, found.schema_text) == ("How many?", "SELECT 1", "d", SCHEMA)


@pytest.mark.parametrize(("text", "reason"), [
    ("How many? SELECT 1", "the form of `text` is not known"), ("", "the form of `text` is not known"),
    ("### Question:\nHow many?\n### SQL:\nSELECT 1", "it begins with '### Question:"),
    ("### Instruction:\nHow many?\n", "the form of `text` is not known"),
    ("<s>[INST] How many? SELECT 1</s>", "the form of `text` is not known"),
    ("[INST] a [/INST] b [/INST] c", "the form of `text` is not known"),
    ("Text before. [INST] How many? [/INST] SELECT 1", "the form of `text` is not known"),
    ("<|im_start|>tool\na<|im_end|>", "the form of `text` is not known"),
    ("<|im_start|>user\na<|im_end|>\nlost words\n<|im_start|>assistant\nb", "the form of `text` is not known"),
    ("<s>[INST] a [/INST] b</s>[INST] c [/INST] d</s>", "has 2 questions"),
    ("<|im_start|>user\na<|im_end|>", "its last role is 'user'"), ("<s>[INST] How many? [/INST] </s>", "no sql"),
])  # fmt: skip
def test_a_text_of_another_form_is_refused_with_line_and_reason(tmp_path, text, reason):
    good = {"text": INST.format(user="How many?", sql="SELECT 1")}
    questions, refused = read(jsonl(tmp_path / "q.jsonl", good, {"text": text}))
    assert [one.place for one in questions] == ["q.jsonl:1"]
    assert [item.place for item in refused] == ["q.jsonl:2"] and reason in refused[0].reason, refused[0].reason


def test_a_named_column_of_texts_comes_before_others(tmp_path):
    text = INST.format(user="From the text?", sql="SELECT 2")
    path = jsonl(tmp_path / "q.jsonl", {"prompt": text, "question": "From the column?", "sql": "SELECT 1"})
    assert only(path).question == "From the column?"
    (found,), _ = read(path, "prompt")
    assert (found.question, found.sql) == ("From the text?", "SELECT 2")


def test_lists_of_spider_and_bird_and_csv_with_line_breaks(tmp_path):
    rows = [{"db_id": "d", "question": "One?", "query": "SELECT 1", "sql": {}, "query_toks": []},
            {"db_id": "d", "question": "Two?", "SQL": "SELECT 2", "evidence": "", "difficulty": "simple"}]  # fmt: skip
    (tmp_path / "dev.json").write_text(json.dumps(rows))
    questions, refused = read(tmp_path / "dev.json")
    assert [(one.place, one.sql) for one in questions] == [("dev.json:1", "SELECT 1"), ("dev.json:2", "SELECT 2")]
    assert not refused
    (tmp_path / "q.csv").write_text('\ufeffquestion,sql,db_id\n"One,\ntwo?","SELECT 1",d\nThree?,SELECT 3,d\nfour,5\n')
    questions, refused = read(tmp_path / "q.csv")
    assert [(one.place, one.question) for one in questions] == [("q.csv:2", "One,\ntwo?"), ("q.csv:4", "Three?")]
    assert [(item.place, item.reason) for item in refused] == [
        ("q.csv:5", "has another number of columns than the first line, which has 3")
    ]


def test_rows_without_a_question_are_refused_with_line_and_reason(tmp_path):
    good = {"question": "How many?", "sql": "SELECT 1"}
    path = jsonl(
        tmp_path / "q.jsonl", good, "", "{broken", '"text"', {"question": "How many?", "result": "SELECT 1"},
        {"question": "", "sql": "SELECT 1"}, chat(("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")),
        chat(("user", "a")), {"messages": [{"role": "user"}]}, chat(("user", "a"), ("assistant", "")), good,
    )  # fmt: skip
    path.write_bytes(path.read_bytes() + b'{"question": "\xff"}\n')
    questions, refused = read(path)
    assert [one.place for one in questions] == ["q.jsonl:1", "q.jsonl:11"]
    reasons = {item.place.partition(":")[2]: item.reason for item in refused}
    assert all(item.path == str(path) and item.kind == "question" for item in refused)
    expected = {
        "3": "is not valid JSON", "4": "is a str, not an object", "5": "no sql: the row needs `sql`, `query`,",
        "6": "no question", "7": "has 2 questions", "8": "its last role is 'user'", "9": "`messages` should be a list",
        "10": "no sql", "12": "is not UTF-8 text (byte 15)",
    }  # fmt: skip
    assert reasons.keys() == expected.keys()
    for line, reason in expected.items():
        assert reason in reasons[line], (line, reasons[line])
    assert "`question`, `result`" in reasons["5"]  # the keys that it has


@pytest.mark.parametrize(("name", "content", "message"), [
    ("q.txt", "a", "are read from .jsonl, .ndjson, .json, .csv, .tsv"), ("q.jsonl", "\n", "holds no questions"),
    ("q.json", "{}", "is a dict; a .json file is a list"), ("q.json", "[", "is not valid JSON"),
    ("q.csv", 'question,sql\n"a', "is not valid CSV"), ("absent.jsonl", None, "no such file"),
])  # fmt: skip
def test_files_that_hold_no_questions_are_refused(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        read(tmp_path / name)


def test_databases_are_found_beside_each_other_and_in_folders_of_their_own(tmp_path):
    for name in ("a.sqlite", "b.DB", "c/c.sqlite", "c/other.sqlite", "d/only.sqlite3", "e/x.sqlite", "e/y.sqlite",
                 "f/notes.txt", ".hidden.sqlite", "schema.sql"):  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    found = {key: path.relative_to(tmp_path).as_posix() for key, path in databases_in(tmp_path).items()}
    assert found == {"a": "a.sqlite", "b": "b.DB", "c": "c/c.sqlite", "d": "d/only.sqlite3"}
    (tmp_path / "a").mkdir()
    (tmp_path / "a/a.db").write_bytes(b"")
    with pytest.raises(DataError, match="The database a has two files"):
        databases_in(tmp_path)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_table_with_any_usual_separator_and_lines_in_its_fields(tmp_path, separator):
    path = tmp_path / ("q.tsv" if separator == "\t" else "q.csv")
    rows = [("db_id", "question", "sql"), ("d", '"How many,\n""quickly""?"', '"SELECT 1;\r\nSELECT\t2"')]
    path.write_bytes("\n".join(separator.join(row) for row in rows).encode())
    found = only(path)
    assert (found.question, found.sql) == ('How many,\n"quickly"?', "SELECT 1;\r\nSELECT\t2")


def test_a_list_within_an_object_is_read(tmp_path):
    path = tmp_path / "q.json"
    path.write_text(json.dumps({"version": 1, "data": [{"question": "How many?", "sql": "SELECT 1"}]}))
    assert only(path).sql == "SELECT 1"


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("q.jsonl", "{}".encode("utf-16"), "UTF-16 text; save it as UTF-8"),
        ("q.csv", "question;sql\nfür;x".encode("cp1252"), "save it as UTF-8"),
    ],
)
def test_a_file_that_is_not_read_is_refused_with_the_remedy(tmp_path, name, content, why):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=why):
        read(tmp_path / name)


def test_the_remedy_for_parquet_can_be_pasted_into_a_shell(tmp_path):
    polars = pytest.importorskip("polars", reason="a package of the markets' extra")
    path = tmp_path / "it's mine.parquet"
    polars.DataFrame({"question": ["How many?"], "sql": ["SELECT 1"], "db_id": ["a"]}).write_parquet(path)
    with pytest.raises(DataError, match="Write it as JSONL first") as caught:
        read(path)
    command = str(caught.value).splitlines()[-1].replace("/tmp/polars/bin/python", sys.executable)
    subprocess.run(command, shell=True, check=True, cwd=tmp_path)
    found, refused = read(path.with_suffix(".jsonl"))
    assert [one.question for one in found] == ["How many?"] and refused == []


@pytest.mark.parametrize("value", [" ", None, 5])
def test_a_column_without_a_text_is_named(tmp_path, value):
    _, refused = read(jsonl(tmp_path / "q.jsonl", {"question": "How many?", "sql": value}))
    assert refused[0].reason == "no sql: `sql` is empty, or no text"
