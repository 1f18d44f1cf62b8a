//! DDL and settings with which tools read the topic of a category.

use annals_schemas::Schema;
use annals_store::{Category, Store};

use super::Result;
use super::columns::{Column, ColumnType, columns};
use crate::config::Config;

/// A tool that reads a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReaderTool {
    /// Flink SQL.
    Flink,
    /// `ClickHouse`.
    ClickHouse,
    /// ksqlDB.
    Ksql,
    /// A sink of Kafka Connect.
    Connect,
}

/// A topic, as a tool reads it.
struct PrintedTopic<'a> {
    category: &'a str,
    topic: String,
    brokers: &'a str,
    registry: &'a str,
    /// The newest version of each event type.
    schemas: Vec<Schema>,
}

/// The DDL or the settings with which a tool reads a category's topic.
///
/// # Errors
/// The store has no schema of the category, or does not answer.
pub(crate) async fn print_for(
    reader: ReaderTool,
    config: &Config,
    store: &Store,
    category: &str,
) -> Result<String> {
    let mut newest: Vec<Schema> = Vec::new();
    for schema in store.recorded_schemas(&Category::new(category)?).await? {
        newest.retain(|earlier| earlier.full_name() != schema.full_name());
        newest.push(schema);
    }
    if newest.is_empty() {
        return Err(format!("the store has no schema of category {category}").into());
    }
    let source = PrintedTopic {
        category,
        topic: config.topic(category),
        brokers: &config.kafka.bootstrap_servers,
        registry: &config.registry.url,
        schemas: newest,
    };
    Ok(match reader {
        ReaderTool::Flink => flink(&source),
        ReaderTool::ClickHouse => clickhouse(&source),
        ReaderTool::Ksql => ksql(&source),
        ReaderTool::Connect => connect(&source),
    })
}

/// The lines of columns; a field without a fitting type is a comment.
fn lines(columns: &[Column], quote: char, spell: impl Fn(&ColumnType) -> Option<String>) -> String {
    let line = |Column { name, of }: &Column| {
        let spelt = match of {
            Ok(of) => spell(of).ok_or_else(|| "its type is not supported".to_owned()),
            Err(reason) => Err(reason.clone()),
        };
        match spelt {
            Ok(of) => format!("  {quote}{name}{quote} {of},\n"),
            Err(reason) => format!("  -- {name}: {reason}\n"),
        }
    };
    columns.iter().map(line).collect()
}

/// Names of columns that no field has.
fn free<'a>(columns: &[Column], names: [&'a str; 5]) -> [std::borrow::Cow<'a, str>; 5] {
    names.map(|name| {
        let is_taken = columns.iter().any(|column| column.name == name);
        if is_taken { format!("{name}_").into() } else { name.into() }
    })
}

fn flink(source: &PrintedTopic<'_>) -> String {
    let PrintedTopic { category, topic, brokers, registry, schemas } = source;
    let columns = columns(schemas);
    let fields = lines(&columns, '`', flink_type);
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

fn clickhouse(source: &PrintedTopic<'_>) -> String {
    let PrintedTopic { category, topic, brokers, registry, schemas } = source;
    let columns = columns(schemas);
    let fields = lines(&columns, '`', clickhouse_type);
    let names: Vec<_> = columns.iter().filter(|column| is_of_clickhouse(column)).collect();
    let selected: String = names.iter().map(|column| format!("  `{}`,\n", column.name)).collect();
    let header = |name: &str| {
        format!("arrayLast((value, name) -> name = '{name}', _headers.value, _headers.name)")
    };
    let (version, id, event_type) =
        (header("ce_streamversion"), header("ce_id"), header("ce_type"));
    format!(
        "-- All event types of category {category}: the fields together, null where a type has no such field.\n\
         create table `{category}_queue` (\n{fields}) engine = Kafka settings\n  \
         kafka_broker_list = '{brokers}',\n  \
         kafka_topic_list = '{topic}',\n  \
         kafka_group_name = 'clickhouse-{category}',\n  \
         kafka_format = 'AvroConfluent',\n  \
         format_avro_schema_registry_url = '{registry}',\n  \
         input_format_avro_allow_missing_fields = 1,\n  \
         kafka_handle_error_mode = 'stream';\n\n\
         create table `{category}_events` (\n{fields}  \
         annals_stream String, annals_version Int64, annals_id UUID,\n  \
         annals_type LowCardinality(String), annals_recorded_at DateTime64(3)\n\
         ) engine = ReplacingMergeTree order by (annals_stream, annals_version);\n\n\
         create materialized view `{category}_reader` to `{category}_events` as select\n{selected}  \
         _key as annals_stream,\n  \
         toInt64({version}) as annals_version,\n  \
         toUUID({id}) as annals_id,\n  \
         {event_type} as annals_type,\n  \
         _timestamp_ms as annals_recorded_at\n\
         from `{category}_queue` where _error = '' and has(_headers.name, 'ce_streamversion');\n"
    )
}

fn is_of_clickhouse(column: &Column) -> bool {
    column.of.as_ref().is_ok_and(|of| clickhouse_type(of).is_some())
}

fn clickhouse_type(of: &ColumnType) -> Option<String> {
    let plain = match of {
        ColumnType::Boolean => "Bool".into(),
        ColumnType::Int => "Int32".into(),
        ColumnType::Long => "Int64".into(),
        ColumnType::Float => "Float32".into(),
        ColumnType::Double => "Float64".into(),
        ColumnType::Bytes | ColumnType::Text | ColumnType::Symbol => "String".into(),
        ColumnType::Date => "Date32".into(),
        ColumnType::Time => "Int64".into(),
        ColumnType::Timestamp(digits) | ColumnType::LocalTimestamp(digits) => {
            format!("DateTime64({digits}, 'UTC')")
        }
        ColumnType::Decimal { precision, scale } => format!("Decimal({precision}, {scale})"),
        // Arrays and maps cannot be null; a type that lacks the field gives an empty one.
        ColumnType::Array(items) => return Some(format!("Array({})", clickhouse_type(items)?)),
        ColumnType::Map(values) => {
            return Some(format!("Map(String, {})", clickhouse_type(values)?));
        }
        ColumnType::Row(fields) => {
            let field = |(name, of): &(String, ColumnType)| {
                Some(format!("`{name}` {}", clickhouse_type(of)?))
            };
            let fields = fields.iter().map(field).collect::<Option<Vec<_>>>()?;
            return Some(format!("Tuple({})", fields.join(", ")));
        }
    };
    Some(format!("Nullable({plain})"))
}

/// ksqlDB takes one schema a stream, by its id: a record of another schema is an error of its
/// processing log, and is left out.
fn ksql(source: &PrintedTopic<'_>) -> String {
    let PrintedTopic { category, topic, schemas, .. } = source;
    let header = format!(
        "-- ksqlDB reads one schema a stream, so that the topic of category {category} is one stream for each event type.\n\
         -- A record of another type is an error in ksqlDB's processing log, and is left out. Set on the server:\n\
         -- ksql.streams.consumer.isolation.level=read_committed, and ksql.fail.on.deserialization.error=false.\n\
         -- The ids: annals-relay schemas register, or GET <registry>/subjects/<subject>/versions/latest.\n"
    );
    let streams = schemas.iter().map(|schema| {
        format!(
            "create stream {category}_{} (\"stream\" string key) with (\n  \
             kafka_topic = '{topic}', key_format = 'kafka', value_format = 'avro',\n  \
             value_schema_id = 0 -- of subject {topic}-{}\n);\n",
            schema.name(),
            schema.full_name()
        )
    });
    std::iter::once(header).chain(streams).collect()
}

fn connect(source: &PrintedTopic<'_>) -> String {
    let PrintedTopic { category, topic, brokers, registry, .. } = source;
    format!(
        "# The worker: bootstrap.servers={brokers}\n\
         # A table a type of event: see docs/consumers/connect.md for TableOfType and the converter.\n\
         name={category}\n\
         connector.class=io.debezium.connector.jdbc.JdbcSinkConnector\n\
         topics={topic}\n\
         consumer.override.isolation.level=read_committed\n\
         key.converter=org.apache.kafka.connect.storage.StringConverter\n\
         value.converter=io.apicurio.registry.utils.converter.AvroConverter\n\
         # Of the registry at {registry}; with Confluent's converter: value.converter.schema.registry.url, and\n\
         # value.converter.value.subject.name.strategy=io.confluent.kafka.serializers.subject.TopicRecordNameStrategy\n\
         insert.mode=upsert\n\
         primary.key.mode=record_header\n\
         schema.evolution=basic\n\
         quote.identifiers=true\n\
         predicates=tombstone\n\
         predicates.tombstone.type=org.apache.kafka.connect.transforms.predicates.RecordIsTombstone\n\
         transforms=events,table\n\
         transforms.events.type=org.apache.kafka.connect.transforms.Filter\n\
         transforms.events.predicate=tombstone\n\
         transforms.table.type=annals.TableOfType\n\
         errors.tolerance=all\n\
         errors.log.enable=true\n"
    )
}
