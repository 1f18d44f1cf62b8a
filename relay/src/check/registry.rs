//! The registry: whether it answers, takes schemas, and has those of the store.

use std::sync::Arc;

use annals_schemas::Layout;
use annals_store::Store;
use sqlx::Row;

use crate::check::ComponentFindings;
use crate::config::{Config, Login};
use crate::publish::registry::RegistryClient;
use crate::report::failure::Failure;

/// The most schemas that are looked up.
const SCHEMAS_MAX: i64 = 500;

pub(super) async fn check(
    config: &Arc<Config>,
    store: &Store,
    findings: &mut ComponentFindings<'_>,
) {
    let remedy = "correct registry.url and the login in [registry]";
    let client = match RegistryClient::connect(config, store) {
        Ok(client) => client,
        Err(failure) => return findings.error(failure.in_full(), remedy),
    };
    if let Err(failure) = client.is_reachable().await {
        return findings.error(failure.in_full(), remedy);
    }
    let is_read_only = mode(config).await.is_some_and(|mode| mode.starts_with("READONLY"));
    if is_read_only && config.registry.auto_register {
        let remedy = "set its mode to READWRITE, or registry.auto_register = false and register schemas yourself";
        findings.error("the registry is read-only, and registry.auto_register is true", remedy);
    }
    let statement = store.schema().statement(include_str!("../../sql/check_schemas.sql"));
    // Without a store there is no schema.
    let rows =
        sqlx::query(statement).bind(SCHEMAS_MAX).fetch_all(store.pool()).await.unwrap_or_default();
    for row in &rows {
        let (Ok(category), Ok(definition)) =
            (row.try_get::<String, _>("category"), row.try_get::<String, _>("definition"))
        else {
            continue;
        };
        let topic = Arc::<str>::from(config.topic(&category));
        let Ok(schema) = annals_schemas::Schema::parse(&definition) else { continue };
        if config.topics.layout(&category) != Layout::Record {
            continue;
        }
        match client.look_up(&topic, schema, None).await {
            Ok(()) => {}
            Err(_) if config.registry.auto_register => {}
            Err(Failure::Schema { schema, source, .. }) => {
                findings.error(
                    format!("schema {schema} of topic {topic} is not usable"),
                    source.to_string(),
                );
            }
            Err(failure) => return findings.error(failure.in_full(), remedy),
        }
    }
}

/// The mode of the registry; none if it does not say.
async fn mode(config: &Config) -> Option<String> {
    let registry = &config.registry;
    let request = reqwest::Client::new().get(format!("{}/mode", registry.url));
    let request = match &registry.login {
        Login::None => request,
        Login::Basic { username, password } => {
            request.basic_auth(username.expose(), Some(password.expose()))
        }
        Login::Token(token) => request.bearer_auth(token.expose()),
    };
    let answer = request.timeout(registry.timeout).send().await.ok()?;
    let answer: serde_json::Value = serde_json::from_str(&answer.text().await.ok()?).ok()?;
    answer["mode"].as_str().map(str::to_owned)
}
