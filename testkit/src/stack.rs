//! Private servers, for tests that stop them.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use tokio::process::Command;
use uuid::Uuid;

use crate::environment::{Environment, is_kept};
use crate::must::Must;
use crate::relay_settings::output_directory;

/// The range of ports: below those that systems assign to outgoing connections. From that range, a
/// client that reconnects to a stopped server could get the server's port itself.
const PORTS: std::ops::Range<u16> = 20_000..30_000;

/// Prefix of the homes' names; the id of the test's process follows.
const HOME_PREFIX: &str = "stack-";

/// A component of the stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Component {
    /// PostgreSQL.
    Postgres,
    /// Kafka.
    Kafka,
    /// The schema registry.
    Registry,
}

impl Component {
    const fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Kafka => "kafka",
            Self::Registry => "registry",
        }
    }

    const fn port_variables(self) -> &'static [&'static str] {
        match self {
            Self::Postgres => &["ANNALS_POSTGRES_PORT"],
            Self::Kafka => &["ANNALS_KAFKA_PORT", "ANNALS_KAFKA_CONTROLLER_PORT"],
            Self::Registry => &["ANNALS_REGISTRY_PORT"],
        }
    }
}

/// How a server ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// By a regular shutdown.
    Orderly,
    /// Killed; PostgreSQL with all its processes at once.
    Crash,
}

/// Servers of this test only, on free ports, with data of their own; the others of its
/// [`environment`](Self::environment) are the shared ones. Removed after the test; the logs stay if
/// it panics.
#[derive(Debug)]
pub struct PrivateStack {
    pub(crate) home: PathBuf,
    pub(crate) environment: Environment,
}

impl PrivateStack {
    /// Starts them and waits until they answer.
    ///
    /// # Panics
    /// If they do not start.
    pub async fn up(components: &[Component]) -> Self {
        Self::home().await.up_with(components, &ports(components)).await
    }

    /// Starts a server whose data are in this directory, which may be a disk of its own.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn with_data_in(directory: &Path, component: Component) -> Self {
        let stack = Self::home().await;
        std::fs::create_dir_all(&stack.home).must("make a private server's home");
        let data = stack.home.join(component.name());
        std::os::unix::fs::symlink(directory, data).must("link the data of a private server");
        stack.up_with(&[component], &ports(&[component])).await
    }

    /// Starts a Kafka with another configuration than the shared one: these properties, and these
    /// variables of `ops/dev/dev` in addition to its port, which is chosen before.
    pub(crate) async fn kafka(port: u16, properties: &str, variables: &[(&str, String)]) -> Self {
        let stack = Self::home().await;
        std::fs::create_dir_all(&stack.home).must("make a private Kafka's home");
        let file = stack.home.join("kafka.properties");
        std::fs::write(file, properties).must("write a private Kafka's properties");
        let own = [("ANNALS_KAFKA_PORT", port.to_string())];
        stack.up_with(&[Component::Kafka], &[&own, variables].concat()).await
    }

    /// Starts a Kafka with these properties, and the policy `ShortRetention` for new topics: no
    /// topics of events for ever, and no segments below 100 MiB.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn kafka_with_policy(properties: &str) -> Self {
        const POLICY: &str = "ShortRetention";
        let stack = Self::home().await;
        let classes = stack.home.join("kafka-classes");
        std::fs::create_dir_all(&classes).must("make a directory for classes");
        let source = format!("{POLICY}.java");
        let written = Path::new(env!("CARGO_MANIFEST_DIR")).join("java").join(&source);
        std::fs::copy(written, classes.join(source)).must("copy a policy");
        let properties = format!("create.topic.policy.class.name={POLICY}\n{properties}");
        std::fs::write(stack.home.join("kafka.properties"), properties)
            .must("write a private Kafka's properties");
        stack.up_with(&[Component::Kafka], &ports(&[Component::Kafka])).await
    }

    /// Starts a standby of a stopped private PostgreSQL: it follows the primary once that runs
    /// again.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn standby_of(primary: &Self) -> Self {
        let stack = Self::home().await;
        let of = primary.home.to_string_lossy().into_owned();
        let own = [
            ("ANNALS_POSTGRES_STANDBY_OF", of),
            ("ANNALS_POSTGRES_VERSION", primary.postgres_version()),
        ];
        stack.postgres_up(&own).await
    }

    /// The requested version, or nothing.
    fn postgres_version(&self) -> String {
        let settings = std::fs::read_to_string(self.home.join("instance"));
        let settings = settings.must("read a private server's settings");
        let version =
            settings.lines().find_map(|line| line.strip_prefix("ANNALS_POSTGRES_VERSION="));
        version.unwrap_or_default().to_owned()
    }

    /// Starts a PostgreSQL with these variables of `ops/dev/dev` in addition to its port.
    pub(crate) async fn postgres_up(self, variables: &[(&str, String)]) -> Self {
        let own = [("ANNALS_POSTGRES_PORT", free_port().to_string())];
        self.up_with(&[Component::Postgres], &[&own, variables].concat()).await
    }

    /// The directory of its data and logs.
    pub(crate) fn path(&self) -> &Path {
        &self.home
    }

    /// Replaces the properties of a private Kafka: they apply from its next start.
    pub(crate) fn set_kafka_properties(&self, properties: &str) {
        let file = self.home.join("kafka.properties");
        std::fs::write(file, properties).must("write a private Kafka's properties");
    }

    /// A home without running components.
    pub(crate) async fn home() -> Self {
        end_orphans().await;
        let unique = Uuid::new_v4().simple().to_string();
        let home = servers_directory();
        let home = home.join(format!("{HOME_PREFIX}{}-{}", std::process::id(), &unique[..8]));
        Self { home, environment: Environment::get().clone() }
    }

    async fn up_with(mut self, components: &[Component], variables: &[(&str, String)]) -> Self {
        let names: Vec<_> = components.iter().map(|component| component.name()).collect();
        self.dev_with(&[&["up"], names.as_slice()].concat(), variables).await;
        let urls = self.dev(&["env"]).await;
        for component in components {
            self.take_url(*component, &urls);
        }
        self
    }

    /// The addresses of the servers: these, and the shared ones for the rest.
    #[must_use]
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// Ends a server; its data stay.
    ///
    /// # Panics
    /// If it does not run, or does not end.
    pub async fn end(&self, component: Component, ending: Ending) {
        let command = match ending {
            Ending::Orderly => "stop",
            Ending::Crash => "kill",
        };
        self.dev(&[command, component.name()]).await;
    }

    /// Starts a server again and waits until it answers.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn start(&self, component: Component) {
        self.dev(&["start", component.name()]).await;
    }

    fn take_url(&mut self, component: Component, exports: &str) {
        let (variable, url) = match component {
            Component::Postgres => ("ANNALS_DATABASE_URL", &mut self.environment.database_url),
            Component::Kafka => ("ANNALS_KAFKA", &mut self.environment.kafka),
            Component::Registry => ("ANNALS_REGISTRY_URL", &mut self.environment.registry_url),
        };
        let prefix = format!("export {variable}=");
        let value = exports.lines().find_map(|line| line.strip_prefix(&prefix));
        *url = value.must("read a private server's URL").to_owned();
    }

    async fn dev(&self, arguments: &[&str]) -> String {
        self.dev_with(arguments, &[]).await
    }

    async fn dev_with(&self, arguments: &[&str], variables: &[(&str, String)]) -> String {
        let mut dev = Command::from(dev(&self.home));
        let dev = dev.args(arguments).envs(variables.iter().map(|(name, value)| (*name, value)));
        let output = dev.output().await.must("run ops/dev/dev");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "ops/dev/dev {}: {errors}", arguments.join(" "));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Ends the servers, and removes their files unless they are kept for inspection.
    fn wind_up(&self, command: &str) -> anyhow::Result<()> {
        let output = dev(&self.home).arg(command).output()?;
        let errors = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "ops/dev/dev {command}: {errors}");
        Ok(())
    }
}

impl Drop for PrivateStack {
    fn drop(&mut self) {
        let ended = if is_kept() {
            eprintln!("kept: private servers' data and logs in {}", self.home.display());
            self.wind_up("down")
        } else {
            self.wind_up("reset").and_then(|()| Ok(std::fs::remove_dir_all(&self.home)?))
        };
        if let Err(error) = ended {
            eprintln!("could not end the private servers of {}: {error:#}", self.home.display());
        }
    }
}

/// A free port for each port of these components, as variables of `ops/dev/dev`.
fn ports(components: &[Component]) -> Vec<(&'static str, String)> {
    let variables = components.iter().flat_map(|component| component.port_variables());
    variables.map(|variable| (*variable, free_port().to_string())).collect()
}

/// The directory with the data of private servers: `ANNALS_TEST_SERVERS`, or that of the tests'
/// output.
fn servers_directory() -> PathBuf {
    std::env::var_os("ANNALS_TEST_SERVERS").map_or_else(output_directory, PathBuf::from)
}

/// Stops servers of killed test programs.
async fn end_orphans() {
    let homes = std::fs::read_dir(servers_directory()).must("look for private servers");
    for home in homes.filter_map(Result::ok).map(|entry| entry.path()) {
        let name = home.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Some(rest) = name.strip_prefix(HOME_PREFIX) else { continue };
        let owner = rest.split('-').next().unwrap_or_default();
        let is_orphaned = !Path::new("/proc").join(owner).exists();
        // Empty after a stop, as after a failed test.
        let run = std::fs::read_dir(home.join("run"));
        let is_running = run.is_ok_and(|mut files| files.any(|file| file.is_ok_and(is_pid_file)));
        if is_orphaned && is_running {
            let ended = Command::from(dev(&home)).arg("down").output().await;
            ended.must("end the private servers of a test that was killed");
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "as `is_ok_and` gives it")]
fn is_pid_file(file: std::fs::DirEntry) -> bool {
    file.path().extension().is_some_and(|extension| extension == "pid")
}

/// The path of a program of PostgreSQL or Prometheus on this machine.
pub(crate) async fn program(name: &str) -> PathBuf {
    path_of(&["program", name]).await
}

/// The path that a command of `ops/dev/dev` prints.
pub(crate) async fn path_of(command: &[&str]) -> PathBuf {
    let output = Command::new(script()).args(command).output().await.must("run ops/dev/dev");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().into()
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("ops").join("dev").join("dev")
}

/// `ops/dev/dev` for the servers of a home.
fn dev(home: &Path) -> std::process::Command {
    let mut dev = std::process::Command::new(script());
    dev.arg("--home").arg(home).arg("--private").env("ANNALS_DEV_BACKEND", "native");
    // Those of the shared servers, if this program runs in a `dev with` that chose them: a home
    // remembers its own.
    for component in [Component::Postgres, Component::Kafka, Component::Registry] {
        for variable in component.port_variables() {
            dev.env_remove(variable);
        }
    }
    dev
}

/// Ports that were chosen for servers of this process: one that is about to start, or is stopped,
/// does not listen on its port.
static CHOSEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

pub(crate) fn free_port() -> u16 {
    let mut chosen = CHOSEN.lock().unwrap_or_else(PoisonError::into_inner);
    let offset = u16::try_from(Uuid::new_v4().as_u128() % 10_000).must("choose a port");
    let mut candidates = (PORTS.start + offset..PORTS.end).chain(PORTS.start..PORTS.start + offset);
    let is_free =
        |port: &u16| !chosen.contains(port) && TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let port = candidates.find(is_free).must("find a free port");
    chosen.insert(port);
    port
}
