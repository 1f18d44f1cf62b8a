//! The database, too, refuses events that a relay could not publish, from every caller of its
//! functions.

use annals_testkit::{Must, Testbed, deposited};
use serde_json::Value;
use sqlx::Row;

const DEFINITION: &str =
    r#"{"type":"record","name":"MoneyDeposited","namespace":"annals.test","fields":[]}"#;
const FULL_NAME: &str = "annals.test.MoneyDeposited";
const UUID: &str = "0198c0de-0000-7000-8000-000000000007";

/// Registers a definition under a name, with its own fingerprint or another one.
async fn register(
    bed: &Testbed,
    fingerprint: Option<i64>,
    full_name: &str,
    definition: &str,
) -> Result<i64, sqlx::Error> {
    let query = sqlx::query_scalar(include_str!("sql/register_raw.sql"));
    let query = query.bind(fingerprint).bind(full_name).bind(definition);
    query.fetch_one(bed.store().pool()).await
}

/// Appends events with these metadata and headers, without the client's checks.
async fn append(bed: &Testbed, fingerprint: i64, shapes: &[(String, String)]) -> (String, Value) {
    let query = sqlx::query(include_str!("sql/append_shapes.sql"));
    let ids: Vec<_> = shapes.iter().map(|_| deposited(1).id().get()).collect();
    let query = query.bind(ids).bind(fingerprint);
    let query = query.bind(shapes.iter().map(|(metadata, _)| metadata.clone()).collect::<Vec<_>>());
    let query = query.bind(shapes.iter().map(|(_, headers)| headers.clone()).collect::<Vec<_>>());
    let row = query.fetch_one(bed.store().pool()).await.must("append past the client's checks");
    let refusals: Option<sqlx::types::Json<Value>> = row.get("refusals");
    (row.get("outcome"), refusals.map_or(Value::Null, |sqlx::types::Json(refusals)| refusals))
}

#[tokio::test]
async fn a_definition_that_is_no_record_of_its_name_or_has_another_fingerprint_is_refused() {
    let bed = Testbed::new("definitions").await;
    let record = register(&bed, None, FULL_NAME, DEFINITION).await.must("register a schema");
    register(&bed, None, FULL_NAME, DEFINITION).await.must("register it again");
    register(&bed, None, "x.Y", r#"{"type":"record","name":"x.Y","namespace":"z","fields":[]}"#)
        .await
        .must("register a schema whose name says its namespace");
    register(&bed, None, "Y", r#"{"type":"record","name":"Y","fields":[]}"#)
        .await
        .must("register a schema without a namespace");
    let cases = [
        (Some(7), "x.Y", "{}"),
        (Some(record), "x.Y", r#"{"type":"record","name":"Y","namespace":"x","fields":[]}"#),
        (None, "x.Y", "{}"),
        (None, "x.Y", "no JSON"),
        (None, "x.Y", "[]"),
        (None, "x.Y", r#""string""#),
        (None, "x.Y", r#"{"type":"enum","name":"Y","namespace":"x","symbols":["A"]}"#),
        (None, "x.Y", r#"{"type":"record","name":"Z","namespace":"x","fields":[]}"#),
        (None, "x.Y", r#"{"type":"record","name":"Y","fields":[]}"#),
        (None, "x.Y", r#"{"type":"record","namespace":"x","fields":[]}"#),
        (None, "x.Y", r#"{"type":"record","name":"Y","namespace":"x"}"#),
    ];
    for (fingerprint, full_name, definition) in cases {
        let refused = register(&bed, fingerprint, full_name, definition).await.unwrap_err();
        let code = refused.as_database_error().must("be refused by the server").code();
        let code = code.must("be refused with a code");
        assert!(["23514", "22P02"].contains(&code.as_ref()), "{definition}: {refused}");
    }
}

#[tokio::test]
async fn metadata_and_headers_that_no_relay_could_read_are_refused_and_the_transaction_lives_on() {
    let bed = Testbed::new("shapes").await;
    let schema = register(&bed, None, FULL_NAME, DEFINITION).await.must("register a schema");
    let before = bed.fingerprint().await;
    let metadata = [
        "[]",
        "null",
        "1",
        r#""text""#,
        r#"{"actor":1}"#,
        r#"{"actor":["ann"]}"#,
        r#"{"traceparent":{}}"#,
        r#"{"tracestate":true}"#,
        r#"{"correlation_id":"no id"}"#,
        r#"{"causation_id":7}"#,
    ];
    let headers = ["[]", "null", r#"["a"]"#, r#"{"a":1}"#, r#"{"a":null}"#, r#"{"a":["b"]}"#];
    let metadata = metadata.map(|shape| ("metadata", (shape.to_owned(), "{}".to_owned())));
    let headers = headers.map(|shape| ("headers", ("{}".to_owned(), shape.to_owned())));
    for (field, shape) in metadata.into_iter().chain(headers) {
        let fine = ("{}".to_owned(), "{}".to_owned());
        for shapes in [vec![shape.clone()], vec![fine, shape.clone()]] {
            let (outcome, refusals) = append(&bed, schema, &shapes).await;
            assert_eq!(outcome, "refused", "{shape:?}");
            assert_eq!(refusals[0]["kind"], "malformed", "{shape:?}: {refusals}");
            assert_eq!(refusals[0]["field"], field, "{shape:?}: {refusals}");
            assert_eq!(refusals.as_array().must("be refused").len(), 1, "{refusals}");
        }
    }
    assert_eq!(bed.fingerprint().await, before);
}

#[tokio::test]
async fn metadata_and_headers_that_can_be_published_are_taken() {
    let bed = Testbed::new("shapes_taken").await;
    let schema = register(&bed, None, FULL_NAME, DEFINITION).await.must("register a schema");
    let ids = format!(r#"{{"correlation_id":"{UUID}","causation_id":null,"actor":"ann"}}"#);
    for metadata in ["{}", &ids, r#"{"own":{"key":[1]}}"#, r#"{"actor":null}"#] {
        let shape = (metadata.to_owned(), r#"{"tenant":"t1","region":""}"#.to_owned());
        for shapes in [vec![shape.clone()], vec![shape.clone(), shape.clone()]] {
            let (outcome, refusals) = append(&bed, schema, &shapes).await;
            assert_eq!(outcome, "appended", "{metadata}: {refusals}");
        }
    }
}
