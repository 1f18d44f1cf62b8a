//! A PgBouncer in transaction mode before a database, with no setting that Annals would need but
//! `max_prepared_statements`.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use uuid::Uuid;

use crate::faulty_link::server_of;
use crate::must::Must;
use crate::stack::{free_port, path_of};
use crate::until::until;

/// The pooler. Ends with the test.
#[derive(Debug)]
pub struct Pooler {
    port: u16,
    directory: PathBuf,
    #[expect(dead_code, reason = "dropping it ends the process")]
    child: Child,
}

impl Pooler {
    /// Starts a pooler before the server of a URL, for all its databases, and waits until it
    /// accepts connections.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn before(url: &str) -> Self {
        let directory =
            std::env::temp_dir().join(format!("annals-pooler.{}", Uuid::new_v4().simple()));
        std::fs::create_dir_all(&directory).must("make a directory for PgBouncer");
        let (server, port) = (server_of(url), free_port());
        let (host, server_port) = server.split_once(':').must("read the port of a URL");
        let login = url.split("://").nth(1).and_then(|rest| rest.split('@').next());
        let (user, password) =
            login.and_then(|login| login.split_once(':')).must("read the login of a URL");
        let configuration = directory.join("pgbouncer.ini");
        let settings = format!(
            "[databases]\n* = host={host} port={server_port} user={user} password={password}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nunix_socket_dir =\nauth_type = any\npool_mode = transaction\n\
             max_prepared_statements = 200\ndefault_pool_size = 5\nlogfile = {}\n",
            directory.join("pgbouncer.log").display()
        );
        std::fs::write(&configuration, settings).must("write PgBouncer's configuration");
        let program = directory.join("pgbouncer");
        std::fs::copy(path_of(&["pgbouncer"]).await, &program).must("copy PgBouncer");
        let mut command = as_plain_user(&directory, &program).await;
        command.arg("--quiet").arg(&configuration).kill_on_drop(true).stdin(Stdio::null());
        let child = command.spawn().must("start PgBouncer");
        until("PgBouncer listens", async || TcpStream::connect(("127.0.0.1", port)).await.is_ok())
            .await;
        Self { port, directory, child }
    }

    /// The URL of a database through the pooler. PgBouncer itself logs in to the server as the user
    /// of the URL.
    #[must_use]
    pub fn url(&self, database_url: &str) -> String {
        database_url.replacen(&server_of(database_url), &format!("127.0.0.1:{}", self.port), 1)
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.directory));
    }
}

/// PgBouncer refuses to run as root.
async fn as_plain_user(directory: &Path, program: &Path) -> Command {
    let id = Command::new("id").arg("-u").output().await.must("ask for the user");
    if id.stdout.trim_ascii() != b"0" {
        return Command::new(program);
    }
    let owned = Command::new("chown").args(["-R", "nobody"]).arg(directory).status().await;
    assert!(owned.must("give a directory to nobody").success(), "chown failed");
    let mut command = Command::new("setpriv");
    command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups"]).arg(program);
    command
}
