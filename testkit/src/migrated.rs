//! Databases of tests are copies of one that is migrated once: a copy takes a third of a
//! migration's processor time, and a run of all tests makes a thousand.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::LazyLock;

use annals_store::Store;
use sqlx::{Connection, PgConnection};
use tokio::sync::OnceCell;
use uuid::Uuid;

use crate::environment::{Environment, is_pooled};
use crate::must::Must;
use crate::postgres::{administer, create_database, drop_database};
use crate::testbed::{BedEnd, connect};

/// Migrations are the content of the database: others make another one.
static NAME: LazyLock<String> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../store/migrations");
    let files = std::fs::read_dir(&folder).must("list the migrations");
    let mut files: Vec<_> = files.map(|file| file.must("list the migrations").path()).collect();
    files.sort();
    let mut hash = DefaultHasher::new();
    for file in files {
        std::fs::read(&file).must("read a migration").hash(&mut hash);
    }
    format!("test_migrated_{:016x}", hash.finish())
});

/// Makes a database with an event store of its own, and connects to it.
pub(crate) async fn make(environment: &Environment, name: &str, end: BedEnd) -> Store {
    static EXISTS: OnceCell<()> = OnceCell::const_new();
    let url = environment.url_of_database(name);
    // The server of one bed is not worth a second database. Through a pooler, a database that is to
    // be copied would keep sessions.
    let is_shared = || environment.database_url == Environment::get().database_url;
    if end == BedEnd::Kept || is_pooled() || !is_shared() {
        create_database(environment, name).await;
        let store = connect(&url).await;
        store.migrate().await.must("migrate the test's database");
        return store;
    }
    EXISTS.get_or_init(|| ensure(environment)).await;
    let copy = include_str!("../sql/copy_database.sql");
    let names = [("the_database", NAME.as_str()), ("the_other", name)];
    administer(environment, copy, &names).await.must("copy the migrated database");
    let store = connect(&url).await;
    let identity = include_str!("../sql/new_identity.sql");
    sqlx::raw_sql(identity).execute(store.pool()).await.must("give the store an id of its own");
    store
}

/// Makes the database that is copied, unless an earlier program has.
async fn ensure(environment: &Environment) {
    if exists(environment).await {
        return;
    }
    // Others see it when it is complete.
    let draft = format!("test_draft_{}", Uuid::new_v4().simple());
    create_database(environment, &draft).await;
    let store = connect(&environment.url_of_database(&draft)).await;
    store.migrate().await.must("migrate a database to copy");
    store.pool().close().await;
    drop(store);
    let statement = include_str!("../sql/rename_database.sql");
    let names = [("the_database", draft.as_str()), ("the_other", NAME.as_str())];
    let renamed = administer(environment, statement, &names).await;
    if let Err(error) = renamed {
        // Another program was faster.
        drop_database(environment, &draft).await;
        assert!(exists(environment).await, "cannot rename the database to copy: {error:#}");
    }
}

async fn exists(environment: &Environment) -> bool {
    let connected = PgConnection::connect(&environment.database_url).await;
    let mut connection = connected.must("connect to the server");
    let found = sqlx::query_scalar(include_str!("../sql/database_exists.sql")).bind(&**NAME);
    let found = found.fetch_one(&mut connection).await.must("look for a database");
    connection.close().await.must("close the connection");
    found
}
