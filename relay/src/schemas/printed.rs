//! DDL and settings with which tools read the topic of a category.

use annals_schemas::{Framing, Layout, Schema};
use annals_store::{Category, Store};

use super::Result;
use super::columns::{Column, ColumnType, columns};
use super::printed_connect::connect;
use super::printed_flink::flink;
use crate::config::Config;

/// The field of an envelope that has the event.
pub(super) const ENVELOPE_FIELD: &str = "event";

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

impl ReaderTool {
    const fn name(self) -> &'static str {
        match self {
            Self::Flink => "Flink SQL",
            Self::ClickHouse => "ClickHouse",
            Self::Ksql => "ksqlDB",
            Self::Connect => "a sink of Kafka Connect",
        }
    }

    /// The layouts whose values it reads.
    const fn layouts(self) -> &'static [Layout] {
        match self {
            Self::Flink => &[Layout::Record, Layout::Union, Layout::Envelope],
            // It takes a record at the top, and no union of records below it.
            Self::ClickHouse => &[Layout::Record],
            // It takes one schema for a topic, of a record.
            Self::Ksql => &[Layout::Envelope],
            Self::Connect => &[Layout::Record, Layout::Envelope],
        }
    }
}

/// A topic, as a tool reads it.
pub(super) struct PrintedTopic<'a> {
    pub(super) category: &'a str,
    pub(super) topic: String,
    pub(super) brokers: &'a str,
    pub(super) registry: &'a str,
    pub(super) layout: Layout,
    /// The newest version of each event type.
    pub(super) schemas: Vec<Schema>,
}

/// The DDL or the settings with which a tool reads a category's topic.
///
/// # Errors
/// The store has no schema of the category, or does not answer; the tool does not read values in
/// the framing or the layout that the configuration gives the category.
pub(crate) async fn print_for(
    reader: ReaderTool,
    config: &Config,
    store: &Store,
    category: &str,
) -> Result<String> {
    let layout = config.topics.layout(category);
    can_read(reader, category, config.topics.framing, layout)?;
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
        layout,
        schemas: newest,
    };
    Ok(match reader {
        ReaderTool::Flink => flink(&source),
        ReaderTool::ClickHouse => clickhouse(&source),
        ReaderTool::Ksql => ksql(&source),
        ReaderTool::Connect => connect(&source),
    })
}

/// Whether a tool reads the values of a category.
fn can_read(reader: ReaderTool, category: &str, framing: Framing, layout: Layout) -> Result<()> {
    let tool = reader.name();
    if framing != Framing::Prefix {
        let (framing, fitting) = (framing.name(), Framing::Prefix.name());
        return Err(format!(
            "{tool} finds a value's schema by the framing {fitting} only; topics.framing is {framing}"
        )
        .into());
    }
    if !reader.layouts().contains(&layout) {
        let fitting: Vec<_> = reader.layouts().iter().map(|layout| layout.name()).collect();
        return Err(format!(
            "{tool} does not read the layout {}, which topics.layouts gives category {category}; it reads the layout {}",
            layout.name(),
            fitting.join(" or ")
        )
        .into());
    }
    Ok(())
}

/// The lines of columns; a field without a fitting type is a comment.
pub(super) fn lines(
    columns: &[Column],
    quote: char,
    spell: impl Fn(&str, &ColumnType) -> Option<String>,
) -> String {
    let line = |Column { name, of }: &Column| {
        let spelt = match of {
            Ok(of) => spell(name, of).ok_or_else(|| "its type is not supported".to_owned()),
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
pub(super) fn free<'a>(columns: &[Column], names: [&'a str; 5]) -> [std::borrow::Cow<'a, str>; 5] {
    names.map(|name| {
        let is_taken = columns.iter().any(|column| column.name == name);
        if is_taken { format!("{name}_").into() } else { name.into() }
    })
}

fn clickhouse(source: &PrintedTopic<'_>) -> String {
    let PrintedTopic { category, topic, brokers, registry, schemas, .. } = source;
    let columns = columns(schemas);
    let fields = lines(&columns, '`', |_, of| clickhouse_type(of));
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

/// ksqlDB takes the schema of `<topic>-value`, and makes a structure of the union, with a field for
/// each event type.
fn ksql(source: &PrintedTopic<'_>) -> String {
    let PrintedTopic { category, topic, schemas, .. } = source;
    let field = schemas.iter().find_map(|schema| {
        let column = columns(&[*schema]).into_iter().next()?;
        Some(format!("event->{}->{}", schema.name(), column.name))
    });
    let field = field.unwrap_or_else(|| "event".to_owned());
    format!(
        "-- All event types of category {category}: the columns are those of the subject {topic}-value, and of an event,\n         -- one of the fields of `event` is not null: select {field} from {category}_events emit changes;\n         -- Set on the server: ksql.streams.consumer.isolation.level=read_committed.\n         create stream {category}_events (`annals_stream` string key) with (\n  \
         kafka_topic = '{topic}', key_format = 'kafka', value_format = 'avro'\n);\n"
    )
}
