//! The macro that declares the events of a category.

/// Declares the events of one category: an enum whose variants hold the structs of the same names,
/// each with its Avro schema.
///
/// The struct of each variant must be in scope and implement `Serialize` and `DeserializeOwned`.
/// Its name is also the name of the Avro record and the event type on the wire.
///
/// A path is relative to the file that contains `events!`, as with `include_str!`; an expression
/// such as `concat!(env!("CARGO_MANIFEST_DIR"), "/avro/..")` works too. The schema is compiled into
/// the program, and a change of the file recompiles it.
///
/// It generates:
/// - the enum, with its attributes and documentation;
/// - its [`EventSet`](crate::EventSet), and a `From` for each struct;
/// - a test with the name of the enum, which fails with a [`FitReport`](crate::FitReport) if a type
///   does not fit its schema, if a record is named differently, or if a file is no schema.
///
/// An illegal category does not compile.
///
/// ```
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Debug, Serialize, Deserialize)]
/// pub struct OrderPlaced {
///     customer: String,
///     #[serde(with = "annals_schemas::timestamp_millis")]
///     placed_at: jiff::Timestamp,
///     lines: Vec<Line>,
///     note: Option<String>,
/// }
///
/// #[derive(Debug, Serialize, Deserialize)]
/// struct Line {
///     sku: String,
///     quantity: i32,
/// }
///
/// annals_schemas::events! {
///     #[derive(Debug)]
///     pub enum OrderEvent in "order" {
///         OrderPlaced = "../tests/avro/order/OrderPlaced.v1.avsc",
///     }
/// }
///
/// // The generated test does the same.
/// annals_schemas::verify::<OrderEvent>()?;
/// # Ok::<(), annals_schemas::FitReport>(())
/// ```
///
/// # Upcasters
///
/// A change that Avro's resolution cannot express gives an event type another name. `upcast` names
/// the set that this one replaces, and the function from its events to any number of events of this
/// set. Sets form a chain, one for each such change, and recorded events stay as they are:
/// [`EventSet::decode_all`](crate::EventSet::decode_all) decodes an event with the set that
/// declares its type, and passes it through the upcasters behind.
///
/// ```
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Debug, Serialize, Deserialize)]
/// # pub struct OrderPlaced {
/// #     customer: String,
/// #     #[serde(with = "annals_schemas::timestamp_millis")]
/// #     placed_at: jiff::Timestamp,
/// #     lines: Vec<Line>,
/// #     note: Option<String>,
/// # }
/// # #[derive(Debug, Serialize, Deserialize)]
/// # struct Line { sku: String, quantity: i32 }
/// # #[derive(Debug, PartialEq, Serialize, Deserialize)]
/// # pub struct OrderShipped { carrier: Carrier, weight_grams: i64 }
/// # #[derive(Debug, PartialEq, Serialize, Deserialize)]
/// # enum Carrier { Post, Courier }
/// use annals_schemas::EventSet;
///
/// annals_schemas::events! {
///     pub enum OrderEventV1 in "order" {
///         OrderPlaced = "../tests/avro/order/OrderPlaced.v1.avsc",
///     }
/// }
/// annals_schemas::events! {
///     #[derive(Debug, PartialEq)]
///     pub enum OrderEvent in "order", upcast OrderEventV1 => ship_at_once {
///         OrderShipped = "../tests/avro/order/OrderShipped.v1.avsc",
///     }
/// }
///
/// fn ship_at_once(event: OrderEventV1) -> Vec<OrderEvent> {
///     let OrderEventV1::OrderPlaced(placed) = event;
///     let shipped = |line: Line| OrderShipped {
///         carrier: Carrier::Post,
///         weight_grams: i64::from(line.quantity),
///     };
///     placed.lines.into_iter().map(shipped).map(OrderEvent::from).collect()
/// }
///
/// assert_eq!(OrderEvent::readable_types(), ["OrderShipped", "OrderPlaced"]);
/// ```
///
/// A category may not contain `-`, which ends the category in a stream's name:
///
/// ```compile_fail
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Serialize, Deserialize)]
/// # pub struct OrderShipped { weight_grams: i64 }
/// annals_schemas::events! {
///     pub enum OrderEvent in "web-order" {
///         OrderShipped = "../tests/avro/order/OrderShipped.v1.avsc",
///     }
/// }
/// ```
#[macro_export]
macro_rules! events {
    (
        $(#[$set_attribute:meta])*
        $visibility:vis enum $set:ident in $category:literal
        $(, upcast $previous:path => $upcaster:path)? {
            $( $(#[$event_attribute:meta])* $event:ident = $path:expr ),+ $(,)?
        }
    ) => {
        $crate::__events! {
            $(#[$set_attribute])*
            $visibility enum $set in $category $(, upcast $previous => $upcaster)? {
                $( $(#[$event_attribute])* $event = $path ),+
            }
        }

        // A function and an enum may share a name: each set has its own test.
        #[cfg(test)]
        #[test]
        #[expect(non_snake_case, reason = "the test of a set is named as the set")]
        fn $set() -> ::core::result::Result<(), $crate::FitReport> {
            $crate::verify::<$set>()
        }
    };
}

/// [`events!`] without its test, for this crate's tests of wrong declarations.
#[doc(hidden)]
#[macro_export]
macro_rules! __events {
    (
        $(#[$set_attribute:meta])*
        $visibility:vis enum $set:ident in $category:literal
        $(, upcast $previous:path => $upcaster:path)? {
            $( $(#[$event_attribute:meta])* $event:ident = $path:expr ),+ $(,)?
        }
    ) => {
        $(#[$set_attribute])*
        $visibility enum $set {
            $( $(#[$event_attribute])* $event($event) ),+
        }

        const _: () = {
            ::core::assert!(
                $crate::__private::is_category($category),
                "a category is a letter and up to 99 letters, digits or _"
            );

            enum EventIndex { $( $event ),+ }

            static TABLE: ::std::sync::LazyLock<$crate::__private::SchemaTable> =
                ::std::sync::LazyLock::new(|| {
                    $crate::__private::SchemaTable::parse(<$set as $crate::EventSet>::EVENTS)
                });

            impl $crate::EventSet for $set {
                const CATEGORY: &'static str = $category;

                const EVENTS: &'static [$crate::EventDeclaration] = &[
                    $( $crate::EventDeclaration {
                        event_type: ::core::stringify!($event),
                        definition: ::core::include_str!($path),
                        check_fit: $crate::check_fit::<$event>,
                    } ),+
                ];

                fn schemas() -> ::core::result::Result<
                    &'static [(&'static str, $crate::Schema)],
                    $crate::SchemaError,
                > {
                    TABLE.schemas()
                }

                fn event_type(&self) -> &'static str {
                    match self {
                        $( Self::$event(_) => ::core::stringify!($event) ),+
                    }
                }

                fn encode(&self) -> ::core::result::Result<$crate::EncodedEvent, $crate::EncodeError> {
                    match self {
                        $( Self::$event(event) => {
                            TABLE.encode(EventIndex::$event as usize, self.event_type(), event)
                        } ),+
                    }
                }

                fn decode(
                    event_type: &str,
                    writer: &$crate::Schema,
                    payload: &[u8],
                ) -> ::core::result::Result<Self, $crate::DecodeError> {
                    match event_type {
                        $( ::core::stringify!($event) => {
                            TABLE.decode(EventIndex::$event as usize, writer, payload).map(Self::$event)
                        } )+
                        unknown => ::core::result::Result::Err(
                            $crate::DecodeError::UnknownEventType {
                                category: $category,
                                event_type: ::std::string::String::from(unknown),
                            },
                        ),
                    }
                }

                $(
                    fn decode_all(
                        event_type: &str,
                        writer: &$crate::Schema,
                        payload: &[u8],
                    ) -> ::core::result::Result<::std::vec::Vec<Self>, $crate::DecodeError> {
                        if Self::EVENTS.iter().any(|declared| declared.event_type == event_type) {
                            let event = Self::decode(event_type, writer, payload)?;
                            return ::core::result::Result::Ok(::std::vec![event]);
                        }
                        let previous = <$previous as $crate::EventSet>::decode_all(event_type, writer, payload)?;
                        ::core::result::Result::Ok(previous.into_iter().flat_map($upcaster).collect())
                    }

                    fn readable_types() -> ::std::vec::Vec<&'static str> {
                        let mut types: ::std::vec::Vec<_> =
                            Self::EVENTS.iter().map(|declared| declared.event_type).collect();
                        types.extend(<$previous as $crate::EventSet>::readable_types());
                        types
                    }
                )?
            }
        };

        $(
            impl ::core::convert::From<$event> for $set {
                fn from(event: $event) -> Self {
                    Self::$event(event)
                }
            }
        )+
    };
}
