//! The settings of a sink of Kafka Connect.

use annals_schemas::Layout;

use super::printed::{ENVELOPE_FIELD, PrintedTopic};

/// The Confluent API of an Apicurio registry, and its own one.
const APICURIO: [&str; 2] = ["/apis/ccompat/v7", "/apis/registry/v2"];

/// The headers of a record but the stream and the version, which are the key of a row.
const OTHER_HEADERS: &str = "ce_specversion,ce_id,ce_source,ce_type,ce_dataschema,ce_time,ce_previousversion,\
ce_position,ce_replayed,ce_correlationid,ce_causationid,traceparent,tracestate,content-type,__value_schema_id";

/// The transform that makes the type's name the table's, of examples/consumers/connect.
const TABLE_OF_TYPE: &str = "transforms=events,table\ntransforms.table.type=annals.TableOfType\n";

/// The settings of Debezium's sink: a table a type of event, or one table of all types from
/// envelopes.
pub(super) fn connect(source: &PrintedTopic<'_>) -> String {
    let PrintedTopic { category, topic, brokers, .. } = source;
    let (table, transforms) = match source.layout {
        Layout::Record | Layout::Union => ("${topic}".to_owned(), TABLE_OF_TYPE.to_owned()),
        Layout::Envelope => (format!("{category}_events"), of_envelope()),
    };
    let converter = converter(source);
    format!(
        "# The worker: bootstrap.servers={brokers}, config.providers=env,\n\
         # config.providers.env.class=org.apache.kafka.common.config.provider.EnvVarConfigProvider.\n\
         # What else there is to know: docs/consumers/connect.md.\n\
         name={category}\n\
         connector.class=io.debezium.connector.jdbc.JdbcSinkConnector\n\
         tasks.max=1\n\
         topics={topic}\n\
         consumer.override.isolation.level=read_committed\n\
         key.converter=org.apache.kafka.connect.storage.StringConverter\n\
         header.converter=org.apache.kafka.connect.storage.StringConverter\n\
         {converter}\
         connection.url=${{env:JDBC_URL}}\n\
         connection.username=${{env:DATABASE_USER}}\n\
         connection.password=${{env:DATABASE_PASSWORD}}\n\
         collection.name.format=${{env:DATABASE_SCHEMA}}.{table}\n\
         insert.mode=upsert\n\
         primary.key.mode=record_header\n\
         schema.evolution=basic\n\
         quote.identifiers=true\n\
         batch.size=2000\n\
         predicates=tombstone\n\
         predicates.tombstone.type=org.apache.kafka.connect.transforms.predicates.RecordIsTombstone\n\
         transforms.events.type=org.apache.kafka.connect.transforms.Filter\n\
         transforms.events.predicate=tombstone\n\
         {transforms}\
         errors.tolerance=all\n\
         errors.log.enable=true\n"
    )
}

/// A column for each field of each type, by the transforms of Connect.
fn of_envelope() -> String {
    format!(
        "transforms=events,event,flat,key\n\
         transforms.event.type=org.apache.kafka.connect.transforms.ExtractField$Value\n\
         transforms.event.field={ENVELOPE_FIELD}\n\
         transforms.flat.type=org.apache.kafka.connect.transforms.Flatten$Value\n\
         transforms.flat.delimiter=_\n\
         transforms.key.type=org.apache.kafka.connect.transforms.DropHeaders\n\
         transforms.key.headers={OTHER_HEADERS}\n"
    )
}

/// Apicurio's converter over its own API, where the registry is one; otherwise Confluent's.
fn converter(source: &PrintedTopic<'_>) -> String {
    let [confluent, own] = APICURIO;
    if let Some(base) = source.registry.trim_end_matches('/').strip_suffix(confluent) {
        return format!(
            "value.converter=io.apicurio.registry.utils.converter.AvroConverter\n\
             value.converter.apicurio.registry.url={base}{own}\n\
             value.converter.apicurio.registry.as-confluent=true\n\
             value.converter.apicurio.registry.use-id=contentId\n"
        );
    }
    let strategy = match source.layout {
        Layout::Record => "TopicRecordNameStrategy",
        Layout::Union | Layout::Envelope => "TopicNameStrategy",
    };
    format!(
        "value.converter=io.confluent.connect.avro.AvroConverter\n\
         value.converter.schema.registry.url={}\n\
         value.converter.value.subject.name.strategy=io.confluent.kafka.serializers.subject.{strategy}\n",
        source.registry
    )
}
