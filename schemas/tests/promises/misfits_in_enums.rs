//! Planted misfits of enums and unions.

use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
enum Reason {
    Carrier,
    Weather,
}

planted! {
    a_symbol_without_a_variant:
    r#"{"name": "a", "type": {"type": "enum", "name": "Cause", "symbols": ["Carrier", "Weather", "Security"]}}"#
    { a: Reason }
    "`a`: the type has no variant Security, enum Cause has that symbol"
}

planted! {
    a_variant_without_a_symbol:
    r#"{"name": "a", "type": {"type": "enum", "name": "Reason", "symbols": ["Carrier"]}}"#
    { a: Reason }
    "`a`: the type writes unit variant, the schema says enum Reason: Expected symbol \"Weather\" at index 1 in enum"
}

planted! {
    variants_and_symbols_in_both_directions_and_a_number:
    r#"{"name": "a", "type": {"type": "enum", "name": "Reason", "symbols": ["Carrier", "Security"]}},
       {"name": "b", "type": "int"}"#
    { a: Reason, b: i64 }
    "`a`: the type has no variant Security, enum Reason has that symbol",
    "`b`: the type wants i64, the schema says int; use i32, or say long",
}

planted! {
    an_enum_where_the_schema_says_text: r#"{"name": "a", "type": "string"}"#
    { a: Reason }
    "`a`: the type wants enum Reason, the schema says string"
}

planted! {
    text_where_the_schema_says_enum:
    r#"{"name": "a", "type": {"type": "enum", "name": "Reason", "symbols": ["Carrier", "Weather"]}}"#
    { a: String }
    "`a`: the type wants text, the schema says enum Reason"
}

#[derive(Serialize, Deserialize)]
enum Fate {
    Arrived,
    Diverted(String),
}

planted! {
    a_variant_with_data_where_the_schema_says_enum:
    r#"{"name": "a", "type": {"type": "enum", "name": "Fate", "symbols": ["Arrived", "Diverted"]}}"#
    { a: Fate }
    "`a`: the type refuses symbol Diverted: invalid type: unit variant, expected newtype variant, the schema has symbol Diverted"
}

#[derive(Serialize, Deserialize)]
enum Amount {
    Whole(i64),
    Text(String),
}

planted! {
    a_union_with_more_branches_than_variants: r#"{"name": "a", "type": ["long", "string", "double"]}"#
    { a: Amount }
    "`a`: the type has 2 variants, the schema's union has 3 branches; one variant a branch, in the same order"
}

planted! {
    a_union_with_fewer_branches_than_variants: r#"{"name": "a", "type": ["long"]}"#
    { a: Amount }
    "`a`: the type has 2 variants, the schema's union has 1 branches; one variant a branch, in the same order"
}

planted! {
    a_union_in_another_order: r#"{"name": "a", "type": ["string", "long"]}"#
    { a: Amount }
    "`a`: the type wants i64, the schema says string"
}

#[derive(Serialize, Deserialize)]
struct Found {
    by: Reason,
}

#[derive(Serialize, Deserialize)]
enum Outcome {
    Nothing,
    Found(Found),
}

planted! {
    a_symbol_deep_inside:
    r#"{"name": "a", "type": {"type": "array", "items": {"type": "map", "values": ["null",
        {"type": "record", "name": "Found", "fields": [{"name": "by", "type":
            {"type": "enum", "name": "Reason", "symbols": ["Weather"]}}]}]}}}"#
    { a: Vec<std::collections::HashMap<String, Outcome>> }
    "`a.by`: the type writes unit variant, the schema says enum Reason: Expected symbol \"Carrier\" at index 0 in enum"
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Loose {
    Number(i64),
    Text(String),
}

planted! {
    an_untagged_enum_that_lacks_a_branch: r#"{"name": "a", "type": ["long", "string", "boolean"]}"#
    { a: Loose }
    "`a`: the type refuses boolean: data did not match any variant of untagged enum Loose, the schema has boolean"
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "kind")]
enum Tagged {
    A { x: i32 },
}

planted! {
    a_tagged_enum: r#"{"name": "a", "type": "int"}"#
    { a: Tagged }
    "`a`: the type refuses every value tried: invalid type: integer `0`, expected internally tagged enum Tagged, the schema has no example that it takes; if it is right to, add \"examples\": [..] to this field of the schema, with values that the type takes"
}
