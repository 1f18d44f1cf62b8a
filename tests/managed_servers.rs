//! A managed server has no superuser: an administrator with CREATEROLE migrates, gives logins their
//! roles, and these do their work.

use annals_store::{Append, Error, ExpectedVersion, MigrationError, Purpose, Store, StoreOptions};
use annals_testkit::{
    Environment, Must, PrivateStack, RelayProcess, Testbed, account, deposited, execute_at,
};
use sqlx::{Connection, PgConnection};

const FIRST: &str = "first_admin";
const SECOND: &str = "second_admin";

/// A database of a private server, for one of its logins.
fn url(environment: &Environment, login: &str, database: &str) -> String {
    environment.url_of_database(database).replacen("annals:annals@", &format!("{login}:any@"), 1)
}

async fn store_as(environment: &Environment, login: &str, database: &str) -> Store {
    let options = StoreOptions::default().connections_max(2).without_notifications();
    options.connect(&url(environment, login, database)).await.must("connect")
}

/// Creates a database and migrates it as an administrator, twice.
async fn migrate_as(environment: &Environment, administrator: &str, database: &str) -> Store {
    let create = format!("create database {database} owner {administrator}");
    execute_at(&environment.database_url, &create).await;
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
    // With nothing to do, a start needs no right of its own.
    service.migrate().await.must("start as a service that may append only");
    service.check().await.must("check as a service that may append only");
    let append = Append::to(&account("a"), ExpectedVersion::NoStream, [deposited(1)]);
    service.append(&append).await.must("append with the right to append only");
}

/// `second_owner` owns the objects that a second administrator migrates; another one created the
/// roles.
async fn administrators_migrate(version: &str, second_owner: &str) {
    let stack = PrivateStack::postgres(version).await;
    let environment = stack.environment();
    execute_at(&environment.database_url, include_str!("sql/administrators.sql")).await;
    for (administrator, database, expected) in [
        (FIRST, "one", "annals_owner"),
        (FIRST, "two", "annals_owner"),
        (SECOND, "three", second_owner),
    ] {
        let store = migrate_as(environment, administrator, database).await;
        assert_eq!(owner(&store).await, expected, "of {database}");
    }
    execute_at(&url(environment, FIRST, "one"), include_str!("sql/logins.sql")).await;
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
async fn administrators_who_are_no_superusers_migrate_on_postgresql_14() {
    administrators_migrate("14", "annals_owner").await;
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

/// The statements that `annals-relay grants` prints, executed by the owner.
async fn grant(owner: &Store, url: &str, purpose: Purpose, login: &str) {
    let grants = owner.grants_for(purpose, login).await.must("list grants");
    execute_at(url, &grants.join(";")).await;
}

async fn without_roles(version: &str) {
    let stack = PrivateStack::postgres(version).await;
    let environment = stack.environment();
    execute_at(&environment.database_url, include_str!("sql/plain_logins.sql")).await;
    execute_at(&environment.database_url, "create database plain").await;
    // The schema exists, and its owner may create neither roles nor schemas.
    let database = environment.url_of_database("plain");
    execute_at(&database, "create schema annals authorization plain_owner").await;
    let options = StoreOptions::default().connections_max(2).without_notifications();
    let owner_url = url(environment, "plain_owner", "plain");
    let store = options.without_roles().connect(&owner_url).await.must("connect");
    store.migrate().await.must("migrate without roles");
    assert_eq!(owner(&store).await, "plain_owner");
    let mut roles = PgConnection::connect(&database).await.must("connect");
    let created: i64 = sqlx::query_scalar(include_str!("sql/annals_roles.sql"))
        .fetch_one(&mut roles)
        .await
        .must("count roles");
    assert_eq!(created, 0, "roles were created");

    let service = store_as(environment, "service", "plain").await;
    let append = Append::to(&account("a"), ExpectedVersion::NoStream, [deposited(1)]);
    assert!(service.append(&append).await.is_err(), "appended without a grant");
    grant(&store, &owner_url, Purpose::Append, "service").await;
    grant(&store, &owner_url, Purpose::Relay, "publisher").await;
    service.migrate().await.must("start as a service that may append only");
    service.append(&append).await.must("append with the grants of an appender");

    let bed = Testbed::on("plain", environment.clone()).await;
    let follower = bed.follow();
    let mut relay =
        RelayProcess::start(&bed.relay().database(&url(environment, "publisher", "plain")));
    follower.until_count(1).await;
    assert!(relay.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_roles_a_plain_owner_of_a_schema_migrates_on_postgresql_14() {
    without_roles("14").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_roles_a_plain_owner_of_a_schema_migrates_on_postgresql_15() {
    without_roles("15").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_roles_a_plain_owner_of_a_schema_migrates_on_postgresql_18() {
    without_roles("18").await;
}

#[tokio::test]
async fn a_login_with_too_few_rights_is_told_what_it_needs() {
    let bed = Testbed::new("too_few_rights").await;
    let login = format!("{}_login", bed.name());
    execute_at(&bed.database_url(), &format!("create role {login} login")).await;
    let url = bed.database_url().replacen("annals:annals@", &format!("{login}:any@"), 1);
    let store = StoreOptions::default().without_notifications().connect(&url).await.must("connect");
    let refused = store.migrate().await.unwrap_err();
    store.pool().close().await;
    execute_at(&bed.database_url(), &format!("drop role {login}")).await;
    assert!(
        matches!(refused, Error::Migrate(MigrationError::NotPermitted(_)))
            && !refused.is_retryable(),
        "{refused:?}"
    );
}
