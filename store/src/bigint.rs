//! Numbers that are `bigint` in the database.

/// Implements the traits by which sqlx binds and decodes a type that wraps an `i64`.
macro_rules! bigint {
    ($name:ident) => {
        impl ::sqlx::Type<::sqlx::Postgres> for $name {
            fn type_info() -> ::sqlx::postgres::PgTypeInfo {
                <i64 as ::sqlx::Type<::sqlx::Postgres>>::type_info()
            }
        }

        impl ::sqlx::postgres::PgHasArrayType for $name {
            fn array_type_info() -> ::sqlx::postgres::PgTypeInfo {
                <i64 as ::sqlx::postgres::PgHasArrayType>::array_type_info()
            }
        }

        impl<'r> ::sqlx::Decode<'r, ::sqlx::Postgres> for $name {
            fn decode(
                value: ::sqlx::postgres::PgValueRef<'r>,
            ) -> Result<Self, ::sqlx::error::BoxDynError> {
                <i64 as ::sqlx::Decode<::sqlx::Postgres>>::decode(value).map(Self)
            }
        }

        impl<'q> ::sqlx::Encode<'q, ::sqlx::Postgres> for $name {
            fn encode_by_ref(
                &self,
                buffer: &mut ::sqlx::postgres::PgArgumentBuffer,
            ) -> Result<::sqlx::encode::IsNull, ::sqlx::error::BoxDynError> {
                <i64 as ::sqlx::Encode<::sqlx::Postgres>>::encode_by_ref(&self.0, buffer)
            }
        }
    };
}

pub(crate) use bigint;
