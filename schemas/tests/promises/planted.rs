//! Types that are wrong on purpose.

use annals_schemas::{Schema, check_fit};
use serde::{Serialize, de::DeserializeOwned};

/// A record `R` of these fields, in the namespace `test`.
pub(crate) fn record(fields: &str) -> Schema {
    let definition =
        format!(r#"{{"type": "record", "name": "R", "namespace": "test", "fields": [{fields}]}}"#);
    Schema::parse(&definition).expect("the test's schema is legal")
}

/// The misfits of a type with a record `R` of these fields.
pub(crate) fn misfits<T: Serialize + DeserializeOwned>(fields: &str) -> Vec<String> {
    let misfits = check_fit::<T>(&record(fields)).err().unwrap_or_default();
    misfits.iter().map(ToString::to_string).collect()
}

/// A struct `R` with these fields has exactly these misfits with a record `R` of those.
macro_rules! planted {
    (
        $promise:ident: $fields:literal
        { $( $(#[$attribute:meta])* $field:ident: $type:ty ),* $(,)? }
        $( $misfit:literal ),* $(,)?
    ) => {
        #[test]
        fn $promise() {
            #[derive(serde::Serialize, serde::Deserialize)]
            struct R { $( $(#[$attribute])* $field: $type ),* }
            let expected: Vec<&str> = vec![$($misfit),*];
            assert_eq!(crate::planted::misfits::<R>($fields), expected);
        }
    };
}
