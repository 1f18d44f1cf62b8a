//! Sets of events, declared by the macro.

use annals_schemas::{DecodeError, EncodeError, EventSet, Schema, events, verify};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct OrderPlaced {
    customer: String,
    #[serde(with = "annals_schemas::timestamp_millis")]
    placed_at: Timestamp,
    lines: Vec<Line>,
    note: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Line {
    sku: String,
    quantity: i32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct OrderShipped {
    carrier: Carrier,
    weight_grams: i64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Carrier {
    Post,
    Courier,
}

events! {
    /// What happens to an order.
    #[derive(Debug, Clone, PartialEq)]
    pub(crate) enum OrderEvent in "order" {
        /// It came in.
        OrderPlaced = "../avro/order/OrderPlaced.v1.avsc",
        /// It went out.
        OrderShipped = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/avro/order/OrderShipped.v1.avsc"),
    }
}

// A second set in the same file: the tests that the macro makes do not clash.
events! {
    #[derive(Debug, Clone, PartialEq)]
    enum ShippingEvent in "shipping_2" {
        OrderShipped = "../avro/order/OrderShipped.v1.avsc",
    }
}

fn shipped() -> OrderShipped {
    OrderShipped { carrier: Carrier::Courier, weight_grams: 1_200 }
}

#[test]
fn an_event_is_encoded_with_its_type_schema_and_json() {
    let event = OrderEvent::from(shipped());
    let encoded = event.encode().expect("it fits");
    assert_eq!(OrderEvent::CATEGORY, "order");
    assert_eq!(encoded.event_type, "OrderShipped");
    assert_eq!(encoded.event_type, event.event_type());
    assert_eq!(encoded.schema.full_name(), "shop.OrderShipped");
    assert_eq!(encoded.fingerprint, encoded.schema.fingerprint());
    assert_eq!(encoded.payload, b"\x02\xe0\x12");
    assert_eq!(encoded.data.get(), r#"{"carrier":"Courier","weight_grams":1200}"#);
}

#[test]
fn what_was_encoded_is_decoded_by_its_type() {
    let line = Line { sku: "A-1".into(), quantity: 2 };
    let placed_at = "2013-01-01T05:00:00Z".parse().expect("RFC 3339");
    let placed = OrderPlaced { customer: "Eva".into(), placed_at, lines: vec![line], note: None };
    for event in [OrderEvent::from(placed), OrderEvent::from(shipped())] {
        let encoded = event.encode().expect("it fits");
        let decoded = OrderEvent::decode(encoded.event_type, &encoded.schema, &encoded.payload);
        assert_eq!(decoded.expect("its own bytes"), event);
    }
}

#[test]
fn an_event_of_an_older_schema_is_decoded_with_the_declared_one() {
    let older = Schema::parse(
        r#"{"type": "record", "name": "OrderPlaced", "namespace": "shop", "fields": [
            {"name": "customer", "type": "string"},
            {"name": "placed_at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
            {"name": "lines", "type": {"type": "array", "items": {"type": "record", "name": "Line",
                "fields": [{"name": "quantity", "type": "int"}, {"name": "sku", "type": "string"}]}}}]}"#,
    )
    .expect("legal");
    let payload = b"\x06Eva\x00\x02\x04\x06A-1\x00";
    let line = Line { sku: "A-1".into(), quantity: 2 };
    let expected = OrderPlaced {
        customer: "Eva".into(),
        placed_at: Timestamp::UNIX_EPOCH,
        lines: vec![line],
        note: None,
    };
    let decoded = OrderEvent::decode("OrderPlaced", &older, payload).expect("compatible");
    assert_eq!(decoded, OrderEvent::OrderPlaced(expected));
}

#[test]
fn a_type_that_was_not_declared_is_told_apart() {
    let encoded = OrderEvent::from(shipped()).encode().expect("it fits");
    let error = OrderEvent::decode("OrderLost", &encoded.schema, &encoded.payload);
    match error.expect_err("unknown") {
        DecodeError::UnknownEventType { category, event_type } => {
            assert_eq!((category, event_type.as_str()), ("order", "OrderLost"));
        }
        other => panic!("another kind of error: {other}"),
    }
}

#[test]
fn schemas_come_in_the_order_of_declaration() {
    let schemas = OrderEvent::schemas().expect("legal schemas");
    let names: Vec<_> =
        schemas.iter().map(|(event_type, schema)| (*event_type, schema.name())).collect();
    assert_eq!(names, [("OrderPlaced", "OrderPlaced"), ("OrderShipped", "OrderShipped")]);
}

mod wrong {
    //! The same types, declared with what does not belong to them.

    use serde::{Deserialize, Serialize};

    #[derive(Debug, Serialize, Deserialize)]
    pub(super) struct OrderPlaced {
        pub(super) customer: i32,
    }

    #[derive(Debug, Serialize, Deserialize)]
    pub(super) struct OrderLost {}

    #[derive(Debug, Serialize, Deserialize)]
    pub(super) struct NoSchema {}

    annals_schemas::__events! {
        #[derive(Debug)]
        pub(super) enum Wrong in "order" {
            OrderPlaced = "../avro/order/OrderPlaced.v1.avsc",
            OrderLost = "../avro/wrong/OrderFound.avsc",
            NoSchema = "../avro/wrong/NoSchema.avsc",
        }
    }
}

#[test]
fn the_generated_test_lists_everything_that_is_wrong() {
    let report = verify::<wrong::Wrong>().expect_err("all of it is wrong");
    let expected = "\
the events of category order do not fit:
  OrderPlaced: `placed_at`: the type has no such field, the schema says long (timestamp-millis)
  OrderPlaced: `lines`: the type has no such field, the schema says array of record Line
  OrderPlaced: `note`: the type has no such field, the schema says [null, string]
  OrderPlaced: `customer`: the type wants i32, the schema says string
  OrderLost: the Avro record is named OrderFound
  OrderLost: logicalType \"timestamp-milis\" has no effect on this long
  OrderLost: `OrderFound`: the type wants struct OrderLost, the schema says record OrderFound; name both the same, or put #[serde(rename = \"OrderFound\")] on OrderLost
  OrderLost: `at`: the type has no such field, the schema says long
  NoSchema: schema NoSchema: not an Avro definition: ";
    let told = report.to_string();
    assert!(told.starts_with(expected), "{told}");
    assert_eq!(format!("{report:?}"), told);
}

#[test]
fn a_broken_schema_is_an_error_of_encoding_and_no_panic() {
    let event = wrong::Wrong::from(wrong::OrderPlaced { customer: 1 });
    match event.encode().expect_err("one schema of the set is broken") {
        EncodeError::Definition(error) => assert_eq!(error.name, "NoSchema"),
        other => panic!("another kind of error: {other}"),
    }
}

mod refused_elsewhere {
    //! Types that fit, with schemas that Java, a registry or a union of the category refuses.

    use serde::{Deserialize, Serialize};

    #[derive(Debug, Serialize, Deserialize)]
    pub(super) struct Refunded {
        reason: Option<String>,
        lines: Vec<Line>,
        #[serde(with = "apache_avro::serde::fixed")]
        amount: [u8; 4],
    }

    #[derive(Debug, Serialize, Deserialize)]
    struct Line {
        sku: Option<String>,
    }

    pub(super) use super::OrderPlaced;

    annals_schemas::__events! {
        #[derive(Debug)]
        pub(super) enum Refused in "order" {
            OrderPlaced = "../avro/order/OrderPlaced.v1.avsc",
            Refunded = "../avro/wrong/Refunded.avsc",
        }
    }
}

#[test]
fn what_other_programs_refuse_is_refused_by_the_generated_test() {
    let report = verify::<refused_elsewhere::Refused>().expect_err("three faults");
    assert_eq!(
        report.problems,
        [
            "Refunded: a decimal of 10 digits does not fit a fixed of 4 bytes, which has 9",
            "Refunded: field `reason`: the default \"none\" is not of the first branch of its union; \
             Java and registries refuse it: put its branch first",
            "Refunded: shop.Line is defined otherwise than in OrderPlaced; a category has one \
             definition of each name",
        ]
    );
}

#[test]
fn a_correct_set_passes() {
    assert_eq!(verify::<OrderEvent>(), Ok(()));
}
