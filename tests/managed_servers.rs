//! A managed server has no superuser: an administrator with CREATEROLE migrates, gives logins their
//! roles, and these do their work.

use annals_store::{Append, Error, ExpectedVersion, MigrationError, Store, StoreOptions};
use annals_testkit::{Environment, Must, PrivateStack, RelayProcess, Testbed, account, deposited};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

const FIRST: &str = "first_admin";
const SECOND: &str = "second_admin";

/// A database of a private server, for one of its logins.
fn url(environment: &Environment, login: &str, database: &str) -> String {
    environment.url_of_database(database).replacen("annals:annals@", &format!("{login}:any@"), 1)
}

async fn execute(url: &str, statements: &str) {
    let mut connection = PgConnection::connect(url).await.must("connect");
    let statements = AssertSqlSafe(statements.to_owned());
    sqlx::raw_sql(statements).execute(&mut connection).await.must("execute statements");
    connection.close().await.must("disconnect");
}

async fn store_as(environment: &Environment, login: &str, database: &str) -> Store {
    let options = StoreOptions::default().connections_max(2).without_notifications();
    options.connect(&url(environment, login, database)).await.must("connect")
}

/// Creates a database and migrates it as an administrator, twice.
async fn migrate_as(environment: &Environment, administrator: &str, database: &str) -> Store {
    let create = format!("create database {database} owner {administrator}");
    execute(&environment.database_url, &create).await;
    let store = store_as(environment, administrator, database).await;
    store.migrate().await.must("migrate");
    store.migrate().await.must("migrate again");
    store_as(environment, administrator, database).await.migrate().await.must("migrate later");
    store
}

async fn owner(store: &Store) -> String {
    let owner = sqlx::query_scalar(include_str!("sql/schema_owner.sql"));
    owner.fetch_one(store.pool()).await.must("look who owns the schema")
}

async fn append_as_service(environment: &Environment, database: &str) {
    let service = store_as(environment, "service", database).await;
    let append = Append::to(&account("a"), ExpectedVersion::NoStream, [deposited(1)]);
    service.append(&append).await.must("append with the right to append only");
}

/// `second_owner` owns the objects that a second administrator migrates; another one created the
/// roles.
async fn administrators_migrate(version: &str, second_owner: &str) {
    let stack = PrivateStack::postgres(version).await;
    let environment = stack.environment();
    execute(&environment.database_url, include_str!("sql/administrators.sql")).await;
    for (administrator, database, expected) in [
        (FIRST, "one", "annals_owner"),
        (FIRST, "two", "annals_owner"),
        (SECOND, "three", second_owner),
    ] {
        let store = migrate_as(environment, administrator, database).await;
        assert_eq!(owner(&store).await, expected, "of {database}");
    }
    execute(&url(environment, FIRST, "one"), include_str!("sql/logins.sql")).await;
    for database in ["one", "two", "three"] {
        append_as_service(environment, database).await;
    }

    let bed = Testbed::on("managed", environment.clone()).await;
    let follower = bed.follow();
    let publisher = url(environment, "publisher", "one");
    let mut relay = RelayProcess::start(&bed.relay().database(&publisher));
    follower.until_count(1).await;
    assert!(relay.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn administrators_who_are_no_superusers_migrate_on_postgresql_15() {
    administrators_migrate("15", "annals_owner").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn administrators_who_are_no_superusers_migrate_on_postgresql_18() {
    // Since 16 only the creator of a role may grant it.
    administrators_migrate("18", SECOND).await;
}

#[tokio::test]
async fn a_login_with_too_few_rights_is_told_what_it_needs() {
    let bed = Testbed::new("too_few_rights").await;
    let login = format!("{}_login", bed.name());
    execute(&bed.database_url(), &format!("create role {login} login")).await;
    let url = bed.database_url().replacen("annals:annals@", &format!("{login}:any@"), 1);
    let store = StoreOptions::default().without_notifications().connect(&url).await.must("connect");
    let refused = store.migrate().await.unwrap_err();
    store.pool().close().await;
    execute(&bed.database_url(), &format!("drop role {login}")).await;
    assert!(
        matches!(refused, Error::Migrate(MigrationError::NotPermitted(_)))
            && !refused.is_retryable(),
        "{refused:?}"
    );
}
