//! Certificates for servers and clients of a test, from an authority of its own.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::x509::extension::{BasicConstraints, KeyUsage, SubjectAlternativeName};
use openssl::x509::{X509, X509Builder, X509Name, X509NameBuilder};
use uuid::Uuid;

use crate::must::Must;
use crate::relay_settings::output_directory;

const DAY_SECONDS: i64 = 86_400;

/// When a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validity {
    /// For ten days from now on.
    Now,
    /// It ended a day ago.
    Ended,
}

/// Files in PEM: a certificate and its private key (PKCS#8).
#[derive(Debug, Clone)]
pub struct CertificateFiles {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The key, followed by the certificate: as Kafka reads a key store in PEM.
    pub both: PathBuf,
}

/// A certificate authority, with the files that it issued. They are removed with the value.
#[derive(Debug)]
pub struct Authority {
    directory: PathBuf,
    certificate: X509,
    key: PKey<Private>,
}

impl Authority {
    /// Makes one.
    ///
    /// # Panics
    /// If its files cannot be written.
    #[must_use]
    pub fn new() -> Self {
        let directory = output_directory().join(format!("tls-{}", Uuid::new_v4().simple()));
        std::fs::create_dir_all(&directory).must("make a directory for certificates");
        let (certificate, key) = root().must("make a certificate authority");
        let pem = certificate.to_pem().must("print a certificate");
        std::fs::write(directory.join("authority.pem"), pem).must("write a certificate");
        Self { directory, certificate, key }
    }

    /// The file with its certificate.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.directory.join("authority.pem")
    }

    /// Issues a certificate with this common name and host names or addresses.
    ///
    /// # Panics
    /// If its files cannot be written.
    #[must_use]
    pub fn issue(&self, name: &str, hosts: &[&str], validity: Validity) -> CertificateFiles {
        let (certificate, key) = self.sign(name, hosts, validity).must("issue a certificate");
        let file = |suffix: &str| self.directory.join(format!("{name}{suffix}"));
        let files = CertificateFiles {
            certificate: file(".pem"),
            key: file("-key.pem"),
            both: file("-both.pem"),
        };
        let (certificate, key) = (
            certificate.to_pem().must("print a certificate"),
            key.private_key_to_pem_pkcs8().must("print a key"),
        );
        std::fs::write(&files.certificate, &certificate).must("write a certificate");
        std::fs::write(&files.key, &key).must("write a key");
        std::fs::write(&files.both, [key, certificate].concat()).must("write a key store");
        files
    }

    fn sign(
        &self,
        name: &str,
        hosts: &[&str],
        validity: Validity,
    ) -> Result<(X509, PKey<Private>), ErrorStack> {
        let key = new_key()?;
        let days = match validity {
            Validity::Now => (-1, 10),
            Validity::Ended => (-10, -1),
        };
        let mut builder = certificate(&subject(name)?, self.certificate.subject_name(), days)?;
        builder.set_pubkey(&key)?;
        if !hosts.is_empty() {
            let mut names = SubjectAlternativeName::new();
            for host in hosts {
                match host.parse::<std::net::IpAddr>() {
                    Ok(_) => names.ip(host),
                    Err(_) => names.dns(host),
                };
            }
            let names = names.build(&builder.x509v3_context(Some(&self.certificate), None))?;
            builder.append_extension(names)?;
        }
        builder.sign(&self.key, MessageDigest::sha256())?;
        Ok((builder.build(), key))
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        if !crate::environment::is_kept() {
            drop(std::fs::remove_dir_all(&self.directory));
        }
    }
}

/// Makes a file readable for one owner only, as PostgreSQL asks of private keys: the owner of
/// another file.
///
/// # Panics
/// If it cannot be changed.
pub(crate) fn give_to_owner_of(file: &Path, like: &Path) {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
    let owner = std::fs::metadata(like).must("find the owner of a file");
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).must("protect a file");
    chown(file, Some(owner.uid()), Some(owner.gid())).must("give a file to another user");
}

fn root() -> Result<(X509, PKey<Private>), ErrorStack> {
    let key = new_key()?;
    let name = subject(&format!("Annals test {}", Uuid::new_v4().simple()))?;
    let mut builder = certificate(&name, &name, (-100, 100))?;
    builder.set_pubkey(&key)?;
    builder.append_extension(BasicConstraints::new().critical().ca().build()?)?;
    builder.append_extension(KeyUsage::new().critical().key_cert_sign().crl_sign().build()?)?;
    builder.sign(&key, MessageDigest::sha256())?;
    Ok((builder.build(), key))
}

fn new_key() -> Result<PKey<Private>, ErrorStack> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
    PKey::from_ec_key(EcKey::generate(&group)?)
}

fn subject(name: &str) -> Result<X509Name, ErrorStack> {
    let mut builder = X509NameBuilder::new()?;
    builder.append_entry_by_text("CN", name)?;
    Ok(builder.build())
}

/// Begins a certificate that is valid between two days, counted from now.
fn certificate(
    name: &X509Name,
    issuer: &openssl::x509::X509NameRef,
    (first, last): (i64, i64),
) -> Result<X509Builder, ErrorStack> {
    let mut builder = X509::builder()?;
    builder.set_version(2)?;
    let serial = BigNum::from_slice(&Uuid::new_v4().as_bytes()[..8])?.to_asn1_integer()?;
    builder.set_serial_number(&serial)?;
    builder.set_subject_name(name)?;
    builder.set_issuer_name(issuer)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    let (first, last) = (
        Asn1Time::from_unix(now + first * DAY_SECONDS)?,
        Asn1Time::from_unix(now + last * DAY_SECONDS)?,
    );
    builder.set_not_before(&first)?;
    builder.set_not_after(&last)?;
    Ok(builder)
}
