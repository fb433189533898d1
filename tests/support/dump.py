"""A whole database as text: every row of every table that a role may read, of every schema but Postgres's own."""

import psycopg
from psycopg import sql

TABLES = """select schemaname, tablename from pg_tables
             where schemaname not in ('pg_catalog', 'information_schema') order by 1, 2"""


def dump(database_url: str) -> dict[str, str]:
    """By table."""
    with psycopg.connect(database_url) as connection:
        found = connection.execute(TABLES).fetchall()
        return {f"{schema}.{table}": _rows(connection, schema, table) for schema, table in found}


def _rows(connection: psycopg.Connection, schema: str, table: str) -> str:
    copy = sql.SQL("copy {} to stdout").format(sql.Identifier(schema, table))
    with connection.cursor() as cursor, cursor.copy(copy) as rows:
        return b"".join(bytes(row) for row in rows).decode()


def holding(database_url: str, text: str) -> list[str]:
    """The tables in which this text stands, as it is or in the hexadecimal of a bytea."""
    return [table for table, rows in dump(database_url).items() if text in rows or text.encode().hex() in rows.lower()]
