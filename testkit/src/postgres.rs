//! Private PostgreSQL servers, and the operations that change a history: dumps, copies of the data,
//! upgrades.

use std::path::{Path, PathBuf};

use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::process::{Child, Command};
use uuid::Uuid;

use crate::certificates::{Authority, CertificateFiles, give_to_owner_of};
use crate::environment::Environment;
use crate::must::Must;
use crate::relay_settings::output_directory;
use crate::stack::{Component, Ending, PrivateStack, program};
use crate::until::until;

impl PrivateStack {
    /// Starts the pinned PostgreSQL of a version, such as `18`.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn postgres(version: &str) -> Self {
        Self::postgres_with(version, &[]).await
    }

    /// The same with settings of the server, each as `name=value`.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn postgres_with(version: &str, settings: &[&str]) -> Self {
        let stack = Self::home().await;
        std::fs::create_dir_all(&stack.home).must("make a private PostgreSQL's home");
        let lines: String = settings.iter().map(|setting| format!("{setting}\n")).collect();
        std::fs::write(stack.home.join("postgres.settings"), lines).must("write its settings");
        stack.postgres_up(&[("ANNALS_POSTGRES_VERSION", version.to_owned())]).await
    }

    /// Starts a new PostgreSQL whose data `pg_upgrade` took from another, stopped one. It has
    /// another system identifier; transaction ids and positions continue. Without a version both
    /// have the machine's.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn upgrade_of(old: &Self, version: Option<&str>) -> Self {
        let of = old.home.to_string_lossy().into_owned();
        let version = version.map(|version| ("ANNALS_POSTGRES_VERSION", version.to_owned()));
        let variables = [Some(("ANNALS_POSTGRES_UPGRADE_OF", of)), version];
        let variables: Vec<_> = variables.into_iter().flatten().collect();
        Self::home().await.postgres_up(&variables).await
    }

    /// `host:port` of its PostgreSQL.
    #[must_use]
    pub fn postgres_address(&self) -> String {
        let url = &self.environment.database_url;
        let address = url.rsplit('@').next().and_then(|rest| rest.split('/').next());
        address.must("find a private server's address").to_owned()
    }

    /// Ends its PostgreSQL, copies its data as they are on the disk, as a volume snapshot does, and
    /// starts it again.
    ///
    /// # Panics
    /// If a step fails.
    pub async fn snapshot(&self) -> Snapshot {
        self.end(Component::Postgres, Ending::Crash).await;
        let name = format!("data-{}", Uuid::new_v4().simple());
        copy(&self.data(), &self.data().with_file_name(&name)).await;
        self.start(Component::Postgres).await;
        Snapshot { name }
    }

    /// Ends its PostgreSQL, restores the copied data, and starts it again.
    ///
    /// # Panics
    /// If a step fails.
    pub async fn restore(&self, snapshot: &Snapshot) {
        self.end(Component::Postgres, Ending::Crash).await;
        let data = self.data();
        std::fs::remove_dir_all(&data).must("remove a private PostgreSQL's data");
        copy(&data.with_file_name(&snapshot.name), &data).await;
        self.start(Component::Postgres).await;
    }

    /// Begins a smart shutdown of its PostgreSQL: it refuses new sessions, and waits for the
    /// present ones to end.
    ///
    /// # Panics
    /// If it does not run.
    pub async fn begin_smart_shutdown(&self) {
        let file = std::fs::read_to_string(self.data().join("postmaster.pid"));
        let file = file.must("read the server's process id");
        let pid = file.lines().next().must("read the server's process id");
        run(Command::new("kill").args(["-TERM", pid])).await;
    }

    /// Lets its PostgreSQL accept connections over TLS only, with this certificate. The user
    /// `certified` has to show a certificate of the authority with this name.
    ///
    /// # Panics
    /// If it cannot be changed.
    pub async fn require_tls(&self, authority: &Authority, server: &CertificateFiles) {
        let url = &self.environment.database_url;
        let mut administrator = PgConnection::connect(url).await.must("connect");
        self.use_certificate(authority, server);
        let rules = "hostssl all certified 127.0.0.1/32 cert\nhostssl all all 127.0.0.1/32 trust\n";
        std::fs::write(self.data().join("pg_hba.conf"), rules).must("write the rules of access");
        let statements = include_str!("../sql/require_tls.sql");
        for statement in statements.split(';') {
            let statement = sqlx::raw_sql(AssertSqlSafe(statement.to_owned()));
            statement.execute(&mut administrator).await.must("require TLS");
        }
        let plain = format!("{url}?sslmode=disable");
        until("only TLS is accepted", async || PgConnection::connect(&plain).await.is_err()).await;
    }

    /// Gives its PostgreSQL another certificate, and waits until it uses that.
    ///
    /// # Panics
    /// If it cannot be changed.
    pub async fn renew_certificate(&self, authority: &Authority, server: &CertificateFiles) {
        let url = &self.environment.database_url;
        self.use_certificate(authority, server);
        let mut administrator = PgConnection::connect(url).await.must("connect");
        let reloaded = sqlx::query_scalar(include_str!("../sql/reload.sql"));
        let reloaded: String = reloaded.fetch_one(&mut administrator).await.must("reload");
        // New sessions have the time of the last reload, which read the certificate.
        until("the certificate is used", async || {
            let mut session = PgConnection::connect(url).await.must("connect");
            let is_later = sqlx::query_scalar(include_str!("../sql/has_reloaded.sql"));
            is_later.bind(&reloaded).fetch_one(&mut session).await.must("ask for the reload")
        })
        .await;
    }

    fn use_certificate(&self, authority: &Authority, server: &CertificateFiles) {
        let data = self.data();
        for (from, name) in [
            (&authority.file(), "root.crt"),
            (&server.certificate, "server.crt"),
            (&server.key, "server.key"),
        ] {
            let file = data.join(name);
            std::fs::copy(from, &file).must("give a certificate to PostgreSQL");
            give_to_owner_of(&file, &data.join("PG_VERSION"));
        }
    }

    fn data(&self) -> PathBuf {
        self.home.join("postgres").join("data")
    }
}

/// The data of a private PostgreSQL as they were at one moment.
#[derive(Debug)]
pub struct Snapshot {
    name: String,
}

async fn copy(from: &Path, to: &Path) {
    run(Command::new("cp").arg("-a").arg(from).arg(to)).await;
}

/// A database dump by `pg_dump`. Deleted with the value.
#[derive(Debug)]
pub struct Dump {
    file: PathBuf,
}

impl Dump {
    /// Dumps the database at a URL.
    ///
    /// # Panics
    /// If it cannot be dumped, or this machine has no `pg_dump`.
    pub async fn of(url: &str) -> Self {
        Self::with(url, &[]).await
    }

    /// Dumps the tables and functions of the database at a URL, without their rows.
    ///
    /// # Panics
    /// As [`of`](Self::of).
    pub async fn of_schema(url: &str) -> Self {
        Self::with(url, &["--schema-only", "--no-publications"]).await
    }

    /// The database at a URL as SQL: texts as they are, bytes in hexadecimal digits.
    ///
    /// # Panics
    /// As [`of`](Self::of).
    pub async fn as_sql(url: &str) -> String {
        let dump = Command::new(program("pg_dump").await).arg(url).output().await;
        let dump = dump.must("run pg_dump");
        assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
        String::from_utf8(dump.stdout).must("be UTF-8")
    }

    async fn with(url: &str, options: &[&str]) -> Self {
        let file = output_directory().join(format!("dump-{}", Uuid::new_v4().simple()));
        let mut dump = Command::new(program("pg_dump").await);
        run(dump.args(["--format=custom", "--file"]).arg(&file).args(options).arg(url)).await;
        Self { file }
    }

    /// Restores it into the empty database at a URL.
    ///
    /// # Panics
    /// If it cannot be restored.
    pub async fn restore(&self, url: &str) {
        let mut restore = Command::new(program("pg_restore").await);
        run(restore.arg("--exit-on-error").arg("--dbname").arg(url).arg(&self.file)).await;
    }
}

impl Drop for Dump {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.file) {
            eprintln!("could not remove {}: {error}", self.file.display());
        }
    }
}

/// A base backup that streams the WAL meanwhile and does not end by itself. Ends with the value.
#[derive(Debug)]
pub struct BaseBackup {
    directory: PathBuf,
    _process: Child,
}

impl BaseBackup {
    /// Begins one of the server at a URL.
    ///
    /// # Panics
    /// If it cannot be begun, or this machine has no `pg_basebackup`.
    pub async fn of(url: &str) -> Self {
        let directory = output_directory().join(format!("backup-{}", Uuid::new_v4().simple()));
        let mut backup = Command::new(program("pg_basebackup").await);
        // The slowest rate that it has, in kilobytes a second.
        backup.args(["--wal-method=stream", "--checkpoint=fast", "--max-rate=32"]);
        backup.args(["--status-interval=1", "--pgdata"]).arg(&directory);
        backup.arg("--dbname").arg(url).kill_on_drop(true);
        Self { directory, _process: backup.spawn().must("begin a base backup") }
    }
}

impl Drop for BaseBackup {
    fn drop(&mut self) {
        // It may still write: what is left is removed with the other output.
        drop(std::fs::remove_dir_all(&self.directory));
    }
}

/// Runs a program that has to succeed.
async fn run(command: &mut Command) {
    let name = command.as_std().get_program().to_string_lossy().into_owned();
    let output = command.output().await.must("run a program");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {errors}");
}

/// Creates an empty database.
///
/// # Panics
/// If the server refuses.
pub async fn create_database(environment: &Environment, name: &str) {
    let statement = include_str!("../sql/create_database.sql");
    administer(environment, statement, &[("the_database", name)]).await.must("create a database");
}

/// Ends all sessions of a database and drops it.
///
/// # Panics
/// If the server refuses.
pub async fn drop_database(environment: &Environment, name: &str) {
    let statement = include_str!("../sql/drop_database.sql");
    administer(environment, statement, &[("the_database", name)]).await.must("drop a database");
}

/// Renames a database, which must have no sessions.
///
/// # Panics
/// If the server refuses.
pub async fn rename_database(environment: &Environment, from: &str, to: &str) {
    let statement = include_str!("../sql/rename_database.sql");
    let names = [("the_database", from), ("the_other", to)];
    administer(environment, statement, &names).await.must("rename a database");
}

/// Copies a database within its server, by `create database ... template`. First ends all its
/// sessions.
///
/// # Panics
/// If the server refuses.
pub async fn copy_database(environment: &Environment, from: &str, to: &str) {
    let names = [("the_database", from), ("the_other", to)];
    let end = include_str!("../sql/end_sessions.sql");
    administer(environment, end, &names).await.must("end the sessions of a database");
    let copy = include_str!("../sql/copy_database.sql");
    administer(environment, copy, &names).await.must("copy a database");
}

/// Runs a statement about databases without sessions: replaces the placeholders by their names.
pub(crate) async fn administer(
    environment: &Environment,
    statement: &str,
    names: &[(&str, &str)],
) -> anyhow::Result<()> {
    let statement =
        names.iter().fold(statement.to_owned(), |text, (of, name)| text.replace(of, name));
    let mut connection = PgConnection::connect(&environment.database_url).await?;
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await?;
    Ok(connection.close().await?)
}
