//! Personal data: erasures, and the rotation of the wrapping key.

use std::path::PathBuf;

use annals_store::{
    AwsCredentials, AwsKmsKeyProvider, FileKeyProvider, PersonalKeys, Store, Subject,
    VaultKeyProvider,
};
use clap::{Args, Subcommand};
use serde_json::json;

/// The key provider and the subcommand.
#[derive(Debug, Args)]
pub(crate) struct PersonalArguments {
    /// A wrapping key in a file, for development.
    #[arg(long, env = "ANNALS_KEY_FILE", conflicts_with = "vault_address")]
    key_file: Option<PathBuf>,
    /// The address of Vault, such as `https://vault.example.org:8200`.
    #[arg(long, env = "VAULT_ADDR", requires_all = ["vault_token", "vault_key"])]
    vault_address: Option<String>,
    /// A token with rights on the key.
    #[arg(long, env = "VAULT_TOKEN", hide_env_values = true)]
    vault_token: Option<String>,
    /// The name of the key in the transit engine.
    #[arg(long, env = "ANNALS_VAULT_KEY")]
    vault_key: Option<String>,
    #[command(flatten)]
    kms: Kms,
    #[command(subcommand)]
    action: PersonalCommand,
}

/// A key of the AWS Key Management Service.
#[derive(Debug, Args)]
struct Kms {
    /// The id or ARN of a key of AWS KMS.
    #[arg(long, env = "ANNALS_KMS_KEY", requires_all = ["region", "access_key", "secret_key"])]
    #[arg(conflicts_with_all = ["key_file", "vault_address"])]
    kms_key: Option<String>,
    /// Its region.
    #[arg(long = "kms-region", env = "AWS_REGION")]
    region: Option<String>,
    /// The access key of a user or role.
    #[arg(long = "kms-access-key", env = "AWS_ACCESS_KEY_ID")]
    access_key: Option<String>,
    /// Its secret.
    #[arg(long = "kms-secret-key", env = "AWS_SECRET_ACCESS_KEY", hide_env_values = true)]
    secret_key: Option<String>,
    /// The token of its session, if it is a role.
    #[arg(long = "kms-session-token", env = "AWS_SESSION_TOKEN", hide_env_values = true)]
    session_token: Option<String>,
    /// Another endpoint than that of the region, such as one in a private network.
    #[arg(long = "kms-endpoint", env = "AWS_ENDPOINT_URL_KMS", value_name = "URL")]
    endpoint: Option<String>,
    /// The encryption context of the keys, as NAME=VALUE; may be repeated, or separated by commas.
    /// It must be that of the services.
    #[arg(long = "kms-context", env = "ANNALS_KMS_CONTEXT", value_name = "NAME=VALUE")]
    #[arg(value_delimiter = ',', value_parser = pair)]
    context: Vec<(String, String)>,
}

fn pair(text: &str) -> Result<(String, String), &'static str> {
    let pair = text.split_once('=').filter(|(name, value)| !name.is_empty() && !value.is_empty());
    let (name, value) = pair.ok_or("a pair is NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

impl Kms {
    /// None without a key.
    fn provider(self) -> anyhow::Result<Option<AwsKmsKeyProvider>> {
        let Some(key) = self.kms_key else { return Ok(None) };
        let credentials = AwsCredentials {
            access_key_id: self.access_key.unwrap_or_default(),
            secret_access_key: self.secret_key.unwrap_or_default().into(),
            session_token: self.session_token.map(Into::into),
        };
        let region = self.region.unwrap_or_default();
        let mut provider = AwsKmsKeyProvider::new(&region, &key, credentials)?;
        if let Some(endpoint) = self.endpoint {
            provider = provider.at(&endpoint)?;
        }
        Ok(Some(provider.encryption_context(self.context.into_iter().collect())))
    }
}

#[derive(Debug, Subcommand)]
enum PersonalCommand {
    /// Erases a subject. It cannot be undone.
    Erase {
        /// The subject.
        subject: String,
        /// Why; it stays in the database, and must not be personal itself.
        #[arg(long)]
        reason: String,
    },
    /// Finishes the erasures that a crash interrupted.
    Finish,
    /// Makes a new wrapping key, and encrypts the keys of all subjects with it.
    Rotate,
    /// Encrypts keys with the newest wrapping key, where an earlier one did.
    Rewrap,
    /// Destroys the earlier wrapping keys: backups from before the last rotation open nothing.
    ForgetBackups,
}

impl PersonalArguments {
    pub(crate) async fn run(self, store: &Store) -> anyhow::Result<()> {
        let keys = match (self.key_file, self.vault_address, self.kms.provider()?) {
            (Some(path), _, _) => PersonalKeys::new(store, FileKeyProvider::open_or_create(path)?),
            (None, Some(address), _) => {
                let token = self.vault_token.unwrap_or_default();
                let key = self.vault_key.unwrap_or_default();
                PersonalKeys::new(store, VaultKeyProvider::new(&address, &token, &key)?)
            }
            (None, None, Some(kms)) => PersonalKeys::new(store, kms),
            (None, None, None) => {
                anyhow::bail!("name the key provider: --key-file, --vault-address or --kms-key")
            }
        };
        let done = match self.action {
            PersonalCommand::Erase { subject, reason } => {
                let erased = keys.erase(&Subject::new(subject)?, &reason).await?;
                let key_id = erased.key_id.map(|id| id.to_string());
                json!({ "key_id": key_id, "erased_before": erased.appended.repeated })
            }
            PersonalCommand::Finish => {
                let subjects = keys.finish_erasures().await?;
                let subjects: Vec<_> = subjects.iter().map(Subject::as_str).collect();
                json!({ "erased": subjects })
            }
            PersonalCommand::Rotate => json!({ "rewrapped": keys.rotate().await? }),
            PersonalCommand::Rewrap => json!({ "rewrapped": keys.rewrap().await? }),
            PersonalCommand::ForgetBackups => {
                keys.destroy_earlier_wrapping_keys().await?;
                json!({ "destroyed": true })
            }
        };
        crate::print(&done)
    }
}
