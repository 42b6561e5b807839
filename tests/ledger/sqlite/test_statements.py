from __future__ import annotations

from pathlib import Path

from m2async.ledger.sqlite.statements import migrations, named_statements, split_script


def test_every_statement_has_a_name_and_no_comment() -> None:
    statements = named_statements("writes", "decisions", "runs", "reads")
    assert {"attempts", "claim", "make_run", "page"} <= statements.keys()
    for text in statements.values():
        assert text.split()[0] in {"INSERT", "UPDATE", "SELECT", "DELETE", "CREATE"}
        assert ";" not in text
        assert "--" not in text


def test_migrations_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number in (2, 1, 10):
        (tmp_path / f"{number:04}.sql").write_text(f"SELECT {number};")
    (tmp_path / "notes.txt").write_text("no migration")
    assert migrations(tmp_path) == ("SELECT 1;", "SELECT 2;", "SELECT 10;")


def test_a_script_is_split_where_its_statements_end() -> None:
    script = "-- first;\nCREATE TABLE a (\n  b TEXT DEFAULT ';' -- not; here\n);\n\nCREATE TABLE c (d); -- end\n"
    assert [statement.split("CREATE")[1][:9] for statement in split_script(script)] == [" TABLE a ", " TABLE c "]
