//! Forwards every request of a type to its deserializer, and notes the place in the schema of one
//! that fails.

use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, EnumAccess, Error, IntoDeserializer, MapAccess,
    SeqAccess, VariantAccess, Visitor,
};

use super::advice::advice;
use super::at::At;
use super::error_text::{is_of_the_request, plain};
use super::findings::{Findings, with};
use super::placeholder::{Drained, Placeholder};
use crate::avro_types::{Fields, Node, Shape};

/// Reads a type through a [`Probe`].
pub(super) struct Probed<T>(pub(super) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Probed<T> {
    fn deserialize<D: Deserializer<'de>>(inner: D) -> Result<Self, D::Error> {
        let node = with(|findings| findings.root());
        T::deserialize(Probe { inner, at: At { node, shown: String::new() } }).map(Self)
    }
}

/// One value of the sample, about to be read.
struct Probe<D> {
    inner: D,
    at: At,
}

impl<D> Probe<D> {
    fn ask<'de, V: Visitor<'de>>(
        self,
        wanted: &str,
        visitor: V,
        forward: impl FnOnce(D, Seen<V>) -> Result<V::Value, D::Error>,
    ) -> Result<V::Value, D::Error>
    where
        D: Deserializer<'de>,
    {
        let Self { inner, at } = self;
        at.check_unit(&visitor);
        let visits = with(|findings| findings.visits());
        forward(inner, Seen { inner: visitor, at: at.clone() }).inspect_err(|error| {
            let never_visited = with(|findings| findings.visits()) == visits;
            if never_visited && is_of_the_request(&error.to_string()) {
                at.unreadable(wanted);
            }
        })
    }
}

macro_rules! requests {
    ($($method:ident($($argument:ident: $type:ty),*): $wanted:expr),+ $(,)?) => {
        $(
            fn $method<V: Visitor<'de>>(
                self,
                $($argument: $type,)*
                visitor: V,
            ) -> Result<V::Value, D::Error> {
                self.ask($wanted.as_ref(), visitor, |inner, seen| inner.$method($($argument,)* seen))
            }
        )+
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Probe<D> {
    type Error = D::Error;

    requests! {
        deserialize_any(): "a value of any type",
        deserialize_identifier(): "a name",
        deserialize_bool(): "bool",
        deserialize_i8(): "i8",
        deserialize_i16(): "i16",
        deserialize_i32(): "i32",
        deserialize_i64(): "i64",
        deserialize_i128(): "i128",
        deserialize_u8(): "u8",
        deserialize_u16(): "u16",
        deserialize_u32(): "u32",
        deserialize_u64(): "u64",
        deserialize_u128(): "u128",
        deserialize_f32(): "f32",
        deserialize_f64(): "f64",
        deserialize_char(): "char",
        deserialize_str(): "text",
        deserialize_string(): "text",
        deserialize_bytes(): "bytes",
        deserialize_byte_buf(): "bytes",
        deserialize_option(): "an Option",
        deserialize_unit(): "()",
        deserialize_unit_struct(name: &'static str): format!("unit struct {name}"),
        deserialize_newtype_struct(name: &'static str): format!("newtype {name}"),
        deserialize_seq(): "a sequence",
        deserialize_tuple(len: usize): format!("a tuple of {len}"),
        deserialize_tuple_struct(name: &'static str, len: usize): format!("tuple struct {name} of {len}"),
        deserialize_map(): "a map",
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let wanted = format!("struct {name}");
        let record = self.at.node.and_then(Node::record).map(Fields::name);
        if record.is_some_and(|record| record != name) {
            let advice = self.at.node.map(|node| advice(&wanted, node)).unwrap_or_default();
            let wants = format!("the type wants {wanted}");
            with(|findings| {
                findings.read_misfit(&self.at.shown, wants, &self.at.says(), &advice);
            });
        }
        self.at.check_fields(fields);
        // Under the schema's name, so that its fields are read although the type's name differs.
        let name = record.unwrap_or(name);
        self.ask(&wanted, visitor, |inner, seen| inner.deserialize_struct(name, fields, seen))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let shown = &self.at.shown;
        match self.at.node.map(Node::shape) {
            Some(Shape::Enum(of)) => {
                let lacks = |symbol: &&String| !variants.contains(&symbol.as_str());
                for symbol in of.symbols.iter().filter(lacks) {
                    let lacks = format!("the type has no variant {symbol}");
                    let has = format!("enum {} has that symbol", of.name.name());
                    with(|findings| findings.read_misfit(shown, lacks, &has, ""));
                }
                let is_symbol = |variant: &&str| of.symbols.iter().any(|symbol| symbol == variant);
                let variants = variants.iter().copied().filter(|variant| !is_symbol(variant));
                with(|findings| findings.has_variants(shown, variants.collect()));
            }
            // The library reads variants by the branch's number; names and aliases do not count.
            Some(Shape::Union(branches)) if branches.len() != variants.len() => {
                let has = format!("the type has {} variants", variants.len());
                let says = format!("the schema's union has {} branches", branches.len());
                let advice = "one variant a branch, in the same order";
                with(|findings| findings.read_misfit(shown, has, &says, advice));
            }
            Some(_) | None => {}
        }
        if let Some(variant) = with(|findings| findings.injected(shown)) {
            Drained::deserialize(self.inner)?;
            return visitor.visit_enum(StrDeserializer::<D::Error>::new(variant));
        }
        let wanted = format!("enum {name}");
        self.ask(&wanted, visitor, |inner, seen| inner.deserialize_enum(name, variants, seen))
    }

    /// The library cannot pass over an enum.
    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        Drained::deserialize(self.inner)?;
        visitor.visit_unit()
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

/// A part that is read at a place.
struct Part<S> {
    seed: S,
    at: At,
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Part<S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<S::Value, D::Error> {
        let Self { seed, at } = self;
        let shown = at.shown.clone();
        if with(|findings| findings.is_replaced(&shown)) {
            Drained::deserialize(inner)?;
            let read = seed.deserialize(Placeholder).map_err(D::Error::custom);
            return read.inspect_err(|_error| with(Findings::give_up));
        }
        let read = seed.deserialize(Probe { inner, at });
        read.inspect_err(|error| with(|findings| findings.refused(&shown, plain(error))))
    }
}

/// A visitor that is handed its value at a place.
struct Seen<V> {
    inner: V,
    at: At,
}

macro_rules! visits {
    ($($method:ident($($argument:ident: $type:ty)?)),+ $(,)?) => {
        $(
            fn $method<E: Error>(self, $($argument: $type)?) -> Result<V::Value, E> {
                with(Findings::visited);
                self.inner.$method($($argument)?)
            }
        )+
    };
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Seen<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    visits! {
        visit_bool(value: bool),
        visit_i8(value: i8),
        visit_i16(value: i16),
        visit_i32(value: i32),
        visit_i64(value: i64),
        visit_i128(value: i128),
        visit_u8(value: u8),
        visit_u16(value: u16),
        visit_u32(value: u32),
        visit_u64(value: u64),
        visit_u128(value: u128),
        visit_f32(value: f32),
        visit_f64(value: f64),
        visit_char(value: char),
        visit_str(value: &str),
        visit_borrowed_str(value: &'de str),
        visit_string(value: String),
        visit_bytes(value: &[u8]),
        visit_borrowed_bytes(value: &'de [u8]),
        visit_byte_buf(value: Vec<u8>),
        visit_none(),
        visit_unit(),
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        with(Findings::visited);
        let Self { inner: visitor, at } = self;
        visitor.visit_some(Probe { inner, at: at.branch() })
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        with(Findings::visited);
        let Self { inner: visitor, at } = self;
        visitor.visit_newtype_struct(Probe { inner, at: at.field(0) })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        with(Findings::visited);
        self.inner.visit_seq(Parts::new(inner, &self.at))
    }

    fn visit_map<A: MapAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        with(Findings::visited);
        self.inner.visit_map(Parts::new(inner, &self.at))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        with(Findings::visited);
        self.inner.visit_enum(Variant { inner, at: self.at.branch() })
    }
}

/// The parts of an array, map or record.
struct Parts<A> {
    inner: A,
    at: At,
    next: usize,
    /// Fields that the type requires and the schema lacks, the last one first.
    required: Vec<String>,
}

impl<A> Parts<A> {
    fn new(inner: A, at: &At) -> Self {
        let at = at.branch();
        let mut required = with(|findings| findings.required(&at.shown));
        required.reverse();
        Self { inner, at, next: 0, required }
    }

    fn is_over(&self) -> bool {
        let record = self.at.node.and_then(Node::record);
        record.is_some_and(|fields| fields.get(self.next).is_none())
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Parts<A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        let at = match self.at.node.and_then(Node::items) {
            Some(items) => self.at.inside(Some(items), "[]"),
            None => self.at.field(self.next),
        };
        self.next += 1;
        self.inner.next_element_seed(Part { seed, at })
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Parts<A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        if self.is_over() {
            let name = self.required.last();
            let name =
                name.map(|name| IntoDeserializer::<A::Error>::into_deserializer(name.as_str()));
            return name.map(|name| seed.deserialize(name)).transpose();
        }
        match self.at.node.and_then(Node::values) {
            Some(values) => {
                let at = self.at.inside(Some(Node::map_key(values)), "{key}");
                self.inner.next_key_seed(Part { seed, at })
            }
            None => self.inner.next_key_seed(seed),
        }
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        if self.is_over() {
            self.required.pop();
            let read = seed.deserialize(Placeholder).map_err(A::Error::custom);
            return read.inspect_err(|_error| with(Findings::give_up));
        }
        let at = match self.at.node.and_then(Node::values) {
            Some(values) => self.at.inside(Some(values), "{}"),
            None => self.at.field(self.next),
        };
        self.next += 1;
        self.inner.next_value_seed(Part { seed, at })
    }
}

/// A variant of an enum, and its content.
struct Variant<A> {
    inner: A,
    at: At,
}

impl<'de, A: EnumAccess<'de>> EnumAccess<'de> for Variant<A> {
    type Error = A::Error;
    type Variant = Variant<A::Variant>;

    fn variant_seed<S: DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<(S::Value, Self::Variant), A::Error> {
        let (variant, inner) = self.inner.variant_seed(seed)?;
        Ok((variant, Variant { inner, at: self.at }))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Variant<A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.inner.unit_variant()
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        self.inner.newtype_variant_seed(Part { seed, at: self.at })
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, A::Error> {
        self.inner.tuple_variant(len, Seen { inner: visitor, at: self.at })
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        self.at.check_fields(fields);
        self.inner.struct_variant(fields, Seen { inner: visitor, at: self.at })
    }
}
