//! Deployments: their delivery, their generation, their shards.

use annals_store::{SchemaName, Store};
use sqlx::Row;

use crate::config::Config;
use crate::report::failure::Failure;

/// A deployment, as the database has it.
pub(crate) struct Deployment {
    pub(crate) generation: u32,
    pub(crate) shards: u16,
}

impl Deployment {
    /// Reads the configured deployment; the first relay that asks creates it.
    ///
    /// # Errors
    /// [`Failure::Delivery`] if it has another delivery; [`Failure::Shards`]; [`Failure::Outage`].
    pub(crate) async fn register(config: &Config, store: &Store) -> Result<Self, Failure> {
        let failed = |source| Failure::database("read the deployment")(source);
        let schema: &SchemaName = store.schema();
        let delivery = config.relay.delivery.name();
        let statement = schema.statement(include_str!("../../sql/deployment_register.sql"));
        let row = sqlx::query(statement)
            .bind(config.publication())
            .bind(delivery)
            .fetch_one(store.pool())
            .await
            .map_err(failed)?;
        let found: String = row.try_get("delivery").map_err(failed)?;
        if found != delivery {
            return Err(Failure::Delivery { configured: delivery, found });
        }
        let generation: i32 = row.try_get("generation").map_err(failed)?;
        let shards: i16 = row.try_get("shards").map_err(failed)?;
        match u16::try_from(shards) {
            Ok(shards) if shards > 0 => Ok(Self { generation: generation.unsigned_abs(), shards }),
            Ok(_) | Err(_) => Err(Failure::Shards(shards)),
        }
    }
}
