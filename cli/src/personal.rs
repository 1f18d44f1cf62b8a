//! Personal data: erasures, and the rotation of the wrapping key.

use std::path::PathBuf;

use annals_store::{FileKeyProvider, PersonalKeys, Store, Subject, VaultKeyProvider};
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
    #[command(subcommand)]
    action: PersonalCommand,
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
        let keys = match (self.key_file, self.vault_address) {
            (Some(path), _) => PersonalKeys::new(store, FileKeyProvider::open_or_create(path)?),
            (None, Some(address)) => {
                let token = self.vault_token.unwrap_or_default();
                let key = self.vault_key.unwrap_or_default();
                PersonalKeys::new(store, VaultKeyProvider::new(&address, &token, &key)?)
            }
            (None, None) => anyhow::bail!("name the key provider: --key-file or --vault-address"),
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
