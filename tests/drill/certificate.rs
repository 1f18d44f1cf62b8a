//! Certificates that end when a drill wants it.

use std::path::Path;
use std::time::{Duration, SystemTime};

use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::PKey;
use openssl::x509::extension::SubjectAlternativeName;
use openssl::x509::{X509, X509NameBuilder};

use annals_testkit::Must;

/// A certificate for 127.0.0.1, signed by itself, and its key.
pub(crate) struct Certificate {
    pub(crate) certificate: Vec<u8>,
    pub(crate) key: Vec<u8>,
}

impl Certificate {
    /// One that is valid for so long from now on.
    pub(crate) fn valid_for(duration: Duration) -> Self {
        Self::make(duration).must("make a certificate")
    }

    /// Writes both files.
    pub(crate) fn write(&self, certificate: &Path, key: &Path) {
        std::fs::write(certificate, &self.certificate).must("write a certificate");
        std::fs::write(key, &self.key).must("write a key");
    }

    fn make(duration: Duration) -> Result<Self, ErrorStack> {
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
        let key = PKey::from_ec_key(EcKey::generate(&group)?)?;
        let mut name = X509NameBuilder::new()?;
        name.append_entry_by_text("CN", "annals-relay")?;
        let name = name.build();
        let end = SystemTime::now() + duration;
        let end = end.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut builder = X509::builder()?;
        builder.set_version(2)?;
        let serial = BigNum::from_u32(u32::try_from(end % 1_000_000_007).unwrap_or(1))?;
        let serial = serial.to_asn1_integer()?;
        builder.set_serial_number(&serial)?;
        builder.set_subject_name(&name)?;
        builder.set_issuer_name(&name)?;
        builder.set_pubkey(&key)?;
        let (begin, end) =
            (Asn1Time::days_from_now(0)?, Asn1Time::from_unix(end.try_into().unwrap_or(i64::MAX))?);
        builder.set_not_before(&begin)?;
        builder.set_not_after(&end)?;
        let context = builder.x509v3_context(None, None);
        let alternative = SubjectAlternativeName::new().ip("127.0.0.1").build(&context)?;
        builder.append_extension(alternative)?;
        builder.sign(&key, MessageDigest::sha256())?;
        let certificate = builder.build().to_pem()?;
        Ok(Self { certificate, key: key.private_key_to_pem_pkcs8()? })
    }
}
