"""ClickHouse in process: creates the tables that `annals-relay schemas export --clickhouse` prints, and reads the values of a
category with their columns and their format. Then it runs the statements of the page.

    python clickhouse.py DDL_FILE VALUES_FOLDER REGISTRY_URL PAGE_FILE

The folder has a file with the values of all events, one behind the other, and one for each type. Prints the counts, and the sums
of cents.
"""

import json
import pathlib
import sys

from chdb.session import Session

QUEUE = "bank_account_queue"


def execute(session, file):
    for statement in filter(None, map(str.strip, pathlib.Path(file).read_text().split(";\n"))):
        try:
            session.query(statement)
        except Exception as error:
            # The package has no threads for the Kafka engine: the table is there with its settings, and nothing reads it.
            if "engine = kafka" not in statement.lower() or "Shutdown was called" not in str(error):
                raise


def main(ddl, folder, registry, page):
    session = Session()

    def rows(statement):
        return [json.loads(line) for line in str(session.query(statement, "JSONEachRow")).splitlines()]

    execute(session, ddl)
    tables = {row["name"] for row in rows("show tables")}
    assert tables == {QUEUE, "bank_account_events", "bank_account_reader"}, tables
    columns = rows(f"select name, type from system.columns where table = '{QUEUE}' order by position")
    structure = ", ".join(f"`{column['name']}` {column['type']}" for column in columns)

    def totals(name):
        read = f"""
            select count() as events, coalesce(sum(cents), 0) as cents
            from file('{pathlib.Path(folder, name).resolve()}', 'AvroConfluent', '{structure}')
            settings format_avro_schema_registry_url = '{registry}', input_format_avro_allow_missing_fields = 1"""
        row, = rows(read)
        return [int(row["events"]), int(row["cents"])]

    types = {file.stem: totals(file.name) for file in pathlib.Path(folder).iterdir()}
    execute(session, page)
    print(json.dumps({"count": types.pop("all")[0], "types": types}))


if __name__ == "__main__":
    main(*sys.argv[1:])
