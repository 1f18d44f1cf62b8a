//! The answers of the registry, and their meaning.

use schema_registry_converter::error::SRCError;
use schema_registry_converter::schema_registry_common::{RawError, RawRegisteredSchema};

use crate::telemetry::clients::RegistryOutcome;

/// The meaning of an answer of the registry.
pub(super) enum RegistryAnswer {
    Found(RawRegisteredSchema),
    Unknown,
    Refused(String),
    Unavailable(SRCError),
}

impl RegistryAnswer {
    pub(super) const fn outcome(&self) -> RegistryOutcome {
        match self {
            Self::Found(_) => RegistryOutcome::Found,
            Self::Unknown => RegistryOutcome::Unknown,
            Self::Refused(_) => RegistryOutcome::Refused,
            Self::Unavailable(_) => RegistryOutcome::Unavailable,
        }
    }
}

/// The registry's own error, if it has answered with one.
pub(super) fn said(error: &SRCError) -> Option<&RawError> {
    std::error::Error::source(error).and_then(|source| source.downcast_ref())
}

/// The meaning of the registry's error code. An error without a code does not come from the
/// registry, but from a proxy in front of it, for instance, and so does a bare 404: it says nothing
/// about an id.
pub(super) fn meaning_of(error_code: u32) -> Option<fn(String) -> RegistryAnswer> {
    match error_code {
        40_401..=40_403 => Some(|_| RegistryAnswer::Unknown),
        // Not permitted: the registry refuses all writes at the moment, for any schema.
        42_205 => None,
        409 | 40_900..=40_999 | 422 | 42_200..=42_299 => Some(RegistryAnswer::Refused),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_codes_of_the_registry_concern_a_schema() {
        let answer = |code| meaning_of(code).map(|meaning| meaning("why".to_owned()));
        for code in [0, 401, 403, 404, 429, 40_400, 40_404, 42_205, 50_001, 50_003] {
            assert!(answer(code).is_none(), "{code}");
        }
        for code in [40_401, 40_402, 40_403] {
            assert!(matches!(answer(code), Some(RegistryAnswer::Unknown)), "{code}");
        }
        for code in [409, 422, 42_201, 42_206] {
            assert!(matches!(answer(code), Some(RegistryAnswer::Refused(_))), "{code}");
        }
    }
}
