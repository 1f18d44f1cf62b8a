//! Versions of a projection: their tables, and which of them readers see.

use std::time::{Duration, Instant};

use sqlx::{Connection, PgConnection, Postgres, Transaction};

use super::{Projection, ProjectionError};
use crate::follow::{Filter, Follow};
use crate::statements::SchemaName;
use crate::store::Store;
use crate::stream::Position;

/// A version of a projection.
#[derive(Debug, Clone)]
pub(super) struct ProjectionVersion {
    pub(super) name: &'static str,
    pub(super) number: i32,
    /// The schema of its tables: a name that needs no quotes.
    pub(super) schema: String,
}

const RESERVED: [&str; 2] = ["public", "information_schema"];

/// Begins a transaction at read committed.
pub(super) async fn begin<'c>(
    store: &Store,
    connection: &'c mut PgConnection,
) -> Result<Transaction<'c, Postgres>, sqlx::Error> {
    connection.begin_with(store.statements().projection_begin.clone()).await
}

impl ProjectionVersion {
    pub(super) fn of(projection: &impl Projection, store: &Store) -> Result<Self, ProjectionError> {
        let (name, version) = (projection.name(), projection.version());
        let schema = format!("{name}_v{version}");
        let illegal = || ProjectionError::Illegal { name: name.to_owned(), version };
        let is_reserved = RESERVED.contains(&name) || name == store.schema().as_str();
        if is_reserved || SchemaName::new(schema.as_str()).is_err() || version == 0 {
            return Err(illegal());
        }
        let number = i32::try_from(version).map_err(|_too_high| illegal())?;
        Ok(Self { name, number, schema })
    }

    /// Registers the version and creates its tables, unless it is registered.
    pub(super) async fn register(
        &self,
        store: &Store,
        projection: &impl Projection,
    ) -> Result<(), ProjectionError> {
        let failed = ProjectionError::database("register a projection");
        // It does not return to the pool: after a dropped `begin`, it would return inside the
        // transaction.
        let acquired = store.within_deadline(store.pool().acquire()).await;
        let mut own = acquired.map_err(&failed)?.detach();
        let begun = store.within_deadline(begin(store, &mut own)).await;
        let mut transaction = begun.map_err(&failed)?;
        let filter = Follow::into_filter(projection.events());
        let insert = self.insert(store, &mut transaction, &filter);
        if store.within_deadline(insert).await.map_err(&failed)? {
            // Without a deadline: the tables can be made of others.
            self.create(store, &mut transaction, projection.tables()).await.map_err(&failed)?;
        } else {
            let found = store.within_deadline(self.filter(store, &mut transaction)).await;
            if found.map_err(&failed)? != Some(filter) {
                let (projection, version) = (self.name.to_owned(), projection.version());
                return Err(ProjectionError::OtherEvents { projection, version });
            }
        }
        store.within_deadline(transaction.commit()).await.map_err(&failed)
    }

    async fn insert(
        &self,
        store: &Store,
        transaction: &mut PgConnection,
        filter: &Filter,
    ) -> Result<bool, sqlx::Error> {
        let inserted = sqlx::query(store.statements().projection_register.clone())
            .bind(self.name)
            .bind(self.number)
            .bind(filter.category.as_deref())
            .bind(filter.types.as_deref())
            .execute(transaction)
            .await?;
        Ok(inserted.rows_affected() == 1)
    }

    async fn filter(
        &self,
        store: &Store,
        transaction: &mut PgConnection,
    ) -> Result<Option<Filter>, sqlx::Error> {
        let found = sqlx::query_as(store.statements().projection_find.clone())
            .bind(self.name)
            .bind(self.number)
            .fetch_optional(transaction)
            .await?;
        Ok(found.map(|(category, types)| Filter { category, types }))
    }

    async fn create(
        &self,
        store: &Store,
        transaction: &mut PgConnection,
        tables: &'static str,
    ) -> Result<(), sqlx::Error> {
        let statements = store.statements();
        let create = sqlx::query(statements.projection_create.clone()).bind(&self.schema);
        create.execute(&mut *transaction).await?;
        self.enter(store, transaction, Duration::ZERO).await?;
        sqlx::raw_sql(tables).execute(&mut *transaction).await?;
        let activate = sqlx::query(statements.projection_activate.clone());
        activate.bind(self.name).bind(self.number).execute(transaction).await?;
        Ok(())
    }

    /// The positions of the events to skip.
    pub(super) async fn skipped(&self, store: &Store) -> Result<Vec<Position>, sqlx::Error> {
        sqlx::query_scalar(store.statements().projection_skips.clone())
            .bind(self.name)
            .bind(self.number)
            .fetch_all(store.pool())
            .await
    }

    /// Lets the rest of a transaction name the version's tables without their schema. It ends if
    /// the client does not answer within `deadline`; zero: never.
    pub(super) async fn enter(
        &self,
        store: &Store,
        transaction: &mut PgConnection,
        deadline: Duration,
    ) -> Result<(), sqlx::Error> {
        let enter = sqlx::query(store.statements().projection_enter.clone());
        enter.bind(&self.schema).bind(milliseconds(deadline)).execute(transaction).await?;
        Ok(())
    }
}

/// As PostgreSQL takes it: at most some 24 days.
pub(super) fn milliseconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}

/// The pause between two tries to switch.
const SWITCH_PAUSE: Duration = Duration::from_millis(20);

impl Store {
    /// Lets readers see a version of a projection instead of the present one, in one transaction:
    /// the views in the schema with the projection's name show its tables from then on. The other
    /// version stays, and the same call switches back.
    ///
    /// A version that is behind the present one is waited for until the deadline, so that readers
    /// do not see an earlier state: run it. The login needs the right to create views in that
    /// schema; new views have the default privileges of the schema.
    ///
    /// # Errors
    /// [`ProjectionError::Behind`] at the deadline; [`ProjectionError::Store`], also if there is no
    /// such version.
    pub async fn switch_projection(
        &self,
        projection: &str,
        version: u32,
        deadline: Duration,
    ) -> Result<(), ProjectionError> {
        let started_at = Instant::now();
        while !self.try_switch(projection, version).await? {
            if started_at.elapsed() >= deadline {
                return Err(self.projection_behind(projection, |of| of.version == version).await);
            }
            tokio::time::sleep(SWITCH_PAUSE).await;
        }
        Ok(())
    }

    /// The names of all projections of this database.
    ///
    /// # Errors
    /// [`ProjectionError::Store`].
    pub async fn projections(&self) -> Result<Vec<String>, ProjectionError> {
        let names = sqlx::query_scalar(self.statements().projections.clone());
        let names = names.fetch_all(self.pool()).await;
        names.map_err(ProjectionError::database("list the projections"))
    }

    async fn try_switch(&self, projection: &str, version: u32) -> Result<bool, ProjectionError> {
        let switched = async {
            let mut own = self.pool().acquire().await?.detach();
            let mut transaction = begin(self, &mut own).await?;
            let switch = sqlx::query_scalar(self.statements().projection_switch.clone());
            let switch = switch.bind(projection).bind(number(version));
            let is_switched = switch.fetch_one(&mut *transaction).await?;
            transaction.commit().await?;
            Ok(is_switched)
        };
        let switched = self.within_deadline(switched).await;
        switched.map_err(ProjectionError::database("switch a projection"))
    }

    /// Deletes a version of a projection that readers do not see, with its tables. End its runner
    /// first, which registers it anew otherwise.
    ///
    /// # Errors
    /// [`ProjectionError::Store`], also if readers see it, or there is no such version.
    pub async fn drop_projection(
        &self,
        projection: &str,
        version: u32,
    ) -> Result<(), ProjectionError> {
        let dropped = async {
            let mut own = self.pool().acquire().await?.detach();
            let mut transaction = begin(self, &mut own).await?;
            let drop = sqlx::query(self.statements().projection_drop.clone());
            let drop = drop.bind(projection).bind(number(version));
            drop.execute(&mut *transaction).await?;
            transaction.commit().await
        };
        let dropped = self.within_deadline(dropped).await;
        dropped.map_err(ProjectionError::database("delete a version of a projection"))
    }
}

/// No version is above the highest `int`.
fn number(version: u32) -> i32 {
    i32::try_from(version).unwrap_or(i32::MAX)
}
