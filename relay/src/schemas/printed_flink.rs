//! The table of a topic in Flink SQL.

use annals_schemas::Layout;

use super::columns::{Column, ColumnType, columns};
use super::printed::{ENVELOPE_FIELD, PrintedTopic, free, lines};

/// The DDL. Avro resolves a branch of a union to the record of the columns, and so a topic of
/// unions has the columns of a topic of records; in an envelope, they are those of its field.
pub(super) fn flink(source: &PrintedTopic<'_>) -> String {
    let PrintedTopic { category, topic, brokers, registry, layout, schemas } = source;
    let columns = columns(schemas);
    let fields = match layout {
        Layout::Record | Layout::Union => lines(&columns, '`', |_, of| flink_type(of)),
        Layout::Envelope => fields_of_envelope(&columns),
    };
    let names = ["stream", "headers", "recorded_at", "event_type", "version"];
    let [stream, headers, recorded_at, event_type, version] = free(&columns, names);
    format!(
        "-- All event types of category {category}: the fields together, null where a type has no such field.\n\
         -- The source repeats records after a failure: see docs/consumers/flink.md for the version filter.\n\
         create table `{category}_events` (\n  \
         `{stream}` string,\n\
         {fields}  \
         `{headers}` map<string, bytes> metadata from 'headers' virtual,\n  \
         `{recorded_at}` timestamp_ltz(3) metadata from 'timestamp' virtual,\n  \
         `{event_type}` as regexp_extract(decode(`{headers}`['ce_type'], 'UTF-8'), '[^.]+$'),\n  \
         `{version}` as cast(decode(`{headers}`['ce_streamversion'], 'UTF-8') as bigint),\n  \
         watermark for `{recorded_at}` as `{recorded_at}` - interval '10' second\n\
         ) with (\n  \
         'connector' = 'kafka',\n  \
         'topic' = '{topic}',\n  \
         'properties.bootstrap.servers' = '{brokers}',\n  \
         'properties.group.id' = 'flink-{category}',\n  \
         'properties.isolation.level' = 'read_committed',\n  \
         'scan.startup.mode' = 'earliest-offset',\n  \
         'key.format' = 'raw',\n  \
         'key.fields' = '{stream}',\n  \
         'value.format' = 'avro-confluent',\n  \
         'value.avro-confluent.url' = '{registry}',\n  \
         'value.fields-include' = 'EXCEPT_KEY'\n\
         );\n"
    )
}

/// The envelope's field as a row, and the fields of that as columns that are computed from it.
fn fields_of_envelope(columns: &[Column]) -> String {
    let field =
        |Column { name, of }: &Column| Some(format!("`{name}` {}", flink_type(of.as_ref().ok()?)?));
    let row: Vec<_> = columns.iter().filter_map(field).collect();
    let computed = lines(columns, '`', |name, of| {
        flink_type(of).map(|_| format!("as `{ENVELOPE_FIELD}`.`{name}`"))
    });
    format!("  `{ENVELOPE_FIELD}` row<{}>,\n{computed}", row.join(", "))
}

fn flink_type(of: &ColumnType) -> Option<String> {
    Some(match of {
        ColumnType::Boolean => "boolean".into(),
        ColumnType::Int => "int".into(),
        ColumnType::Long => "bigint".into(),
        ColumnType::Float => "float".into(),
        ColumnType::Double => "double".into(),
        ColumnType::Bytes => "bytes".into(),
        ColumnType::Text => "string".into(),
        // Flink's reader schema has a text there, and Avro does not resolve an enum to one.
        ColumnType::Symbol => return None,
        ColumnType::Date => "date".into(),
        ColumnType::Time => "time(3)".into(),
        ColumnType::Timestamp(digits) => format!("timestamp_ltz({digits})"),
        ColumnType::LocalTimestamp(digits) => format!("timestamp({digits})"),
        ColumnType::Decimal { precision, scale } => format!("decimal({precision}, {scale})"),
        ColumnType::Array(items) => format!("array<{}>", flink_type(items)?),
        ColumnType::Map(values) => format!("map<string, {}>", flink_type(values)?),
        ColumnType::Row(fields) => {
            let field =
                |(name, of): &(String, ColumnType)| Some(format!("`{name}` {}", flink_type(of)?));
            format!("row<{}>", fields.iter().map(field).collect::<Option<Vec<_>>>()?.join(", "))
        }
    })
}
