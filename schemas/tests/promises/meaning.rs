//! Two definitions are the same schema if they mean the same, however they are written.

use annals_schemas::Schema;

fn schema(definition: &str) -> Schema {
    Schema::parse(definition).expect("a legal definition")
}

fn of_fields(fields: &str) -> Schema {
    schema(&format!(r#"{{"type":"record","name":"R","namespace":"a.b","fields":[{fields}]}}"#))
}

#[test]
fn what_is_only_written_in_another_way_means_the_same() {
    let one = schema(
        r#"{"type":"record","name":"a.b.R","doc":"why","aliases":["Q"],"fields":[
            {"name":"x","type":{"type":"string"},"order":"ascending","aliases":[]},
            {"name":"e","type":{"type":"enum","name":"E","namespace":"a.b","symbols":["A","B"],"default":"B"}},
            {"name":"f","type":["null","a.b.E"],"default":null},
            {"name":"n","type":"double","default":1e0},
            {"name":"d","type":{"type":"bytes","logicalType":"decimal","precision":9}},
            {"name":"m","type":{"type":"map","values":"float"},"default":{"b":1,"a":0.5}}
        ]}"#,
    );
    let other = schema(
        r#"{"namespace":"a.b","aliases":["a.b.Q"],"name":"R","type":"record","pii":true,"fields":[
            {"type":"string","name":"x","doc":"what"},
            {"name":"e","type":{"symbols":["A","B"],"name":"E","type":"enum","default":"B"}},
            {"name":"f","type":["null","E"],"default":null},
            {"name":"n","type":"double","default":1},
            {"name":"d","type":{"type":"bytes","scale":0,"precision":9,"logicalType":"decimal"}},
            {"name":"m","type":{"type":"map","values":"float"},"default":{"a":0.50,"b":1.0}}
        ]}"#,
    );
    assert!(one.is_equivalent_to(&other));
    assert_ne!(one.fingerprint(), other.fingerprint());
}

#[test]
fn what_is_another_schema_is_told_apart() {
    let base = r#"{"name":"x","type":"long"}"#;
    let different = [
        r#"{"name":"y","type":"long"}"#,
        r#"{"name":"x","type":"int"}"#,
        r#"{"name":"x","type":"long","default":0}"#,
        r#"{"name":"x","type":"long","default":1}"#,
        r#"{"name":"x","type":"long","aliases":["y"]}"#,
        r#"{"name":"x","type":"long","order":"descending"}"#,
        r#"{"name":"x","type":["null","long"]}"#,
        r#"{"name":"x","type":["long","null"]}"#,
        r#"{"name":"x","type":{"type":"long","logicalType":"timestamp-millis"}}"#,
        r#"{"name":"x","type":{"type":"long","logicalType":"timestamp-micros"}}"#,
        r#"{"name":"x","type":{"type":"long","logicalType":"cents"}}"#,
        r#"{"name":"x","type":{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}}"#,
        r#"{"name":"x","type":{"type":"bytes","logicalType":"decimal","precision":9,"scale":3}}"#,
        r#"{"name":"x","type":{"type":"bytes","logicalType":"decimal","precision":8,"scale":2}}"#,
        r#"{"name":"x","type":"bytes"}"#,
        r#"{"name":"x","type":{"type":"string","logicalType":"uuid"}}"#,
        r#"{"name":"x","type":"string"}"#,
        r#"{"name":"x","type":{"type":"array","items":"long"}}"#,
        r#"{"name":"x","type":{"type":"map","values":"long"}}"#,
        r#"{"name":"x","type":{"type":"enum","name":"E","symbols":["A","B"]}}"#,
        r#"{"name":"x","type":{"type":"enum","name":"E","symbols":["B","A"]}}"#,
        r#"{"name":"x","type":{"type":"enum","name":"E","symbols":["A","B"],"default":"A"}}"#,
        r#"{"name":"x","type":{"type":"enum","name":"E","symbols":["A","B"],"aliases":["F"]}}"#,
        r#"{"name":"x","type":{"type":"enum","name":"F","symbols":["A","B"]}}"#,
        r#"{"name":"x","type":{"type":"enum","name":"c.E","symbols":["A","B"]}}"#,
        r#"{"name":"x","type":{"type":"fixed","name":"F","size":4}}"#,
        r#"{"name":"x","type":{"type":"fixed","name":"F","size":5}}"#,
        r#"{"name":"x","type":"long"},{"name":"y","type":"int"}"#,
        r#"{"name":"y","type":"int"},{"name":"x","type":"long"}"#,
    ];
    let all: Vec<Schema> = std::iter::once(base).chain(different).map(of_fields).collect();
    for (place, one) in all.iter().enumerate() {
        for other in &all[place + 1..] {
            assert!(!one.is_equivalent_to(other), "{}\n{}", one.definition(), other.definition());
        }
        assert!(one.is_equivalent_to(one));
    }
    let renamed = schema(r#"{"type":"record","name":"S","namespace":"a.b","fields":[]}"#);
    let moved = schema(r#"{"type":"record","name":"S","namespace":"a.c","fields":[]}"#);
    assert!(!renamed.is_equivalent_to(&moved));
}

#[test]
fn what_only_a_doc_tells_apart_is_read_as_it_was_written() {
    // By Avro's rules the first of two records with one name and other namespaces would be taken.
    let of = |doc: &str| {
        schema(&format!(
            r#"{{"type":"record","name":"Moved","doc":"{doc}","fields":[{{"name":"to","type":[
                {{"type":"record","name":"Address","namespace":"home","fields":[{{"name":"city","type":"string"}}]}},
                {{"type":"record","name":"Address","namespace":"work","fields":[{{"name":"city","type":"string"}}]}}]}}]}}"#
        ))
    };
    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    struct Address {
        city: String,
    }
    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    enum To {
        Home(Address),
        Work(Address),
    }
    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    struct Moved {
        to: To,
    }
    let moved = Moved { to: To::Work(Address { city: "Rome".to_owned() }) };
    let payload = of("").encode(&moved).expect("it fits");
    assert_eq!(of("").decode::<Moved>(&payload, &of("another")).expect("it reads"), moved);
}
