//! A Kerberos realm, and a Kafka whose clients log in by it.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::{Child, Command};

use crate::environment::Environment;
use crate::must::Must;
use crate::secure_kafka::{JAVA_OPTIONS, KafkaLogin, USER};
use crate::stack::{PrivateStack, free_port};
use crate::until::until;

const REALM: &str = "ANNALS.TEST";
const HOST: &str = "127.0.0.1";
/// Where the Kerberos library reads its configuration: also in the process of the test, which
/// must have it from its start.
const CONFIGURATION: &str = "KRB5_CONFIG";
const KDC_CONFIGURATION: &str = "KRB5_KDC_PROFILE";

/// A key distribution centre with the users `relay` and `kafka`. Ends with the test.
#[derive(Debug)]
struct Realm {
    configuration: PathBuf,
    directory: PathBuf,
    #[expect(dead_code, reason = "dropping it ends the process")]
    process: Child,
}

impl Realm {
    async fn start() -> Self {
        let configuration = std::env::var_os(CONFIGURATION);
        let configuration =
            PathBuf::from(configuration.must("read KRB5_CONFIG of the environment"));
        let directory = configuration.parent().must("find the directory of KRB5_CONFIG").to_owned();
        let port = free_port();
        std::fs::write(&configuration, client_settings(port)).must("write krb5.conf");
        std::fs::write(directory.join("kdc.conf"), kdc_settings(port, &directory))
            .must("write kdc.conf");
        let create = ["create", "-s", "-r", REALM, "-P", "the_master_key"];
        run(&directory, "kdb5_util", &create).await;
        let mut process = command(&directory, "krb5kdc");
        process.arg("-n").kill_on_drop(true);
        let process = process.spawn().must("start krb5kdc; install krb5-kdc");
        until("the KDC listens", async || TcpStream::connect((HOST, port)).is_ok()).await;
        let realm = Self { configuration, directory, process };
        realm.add(&format!("kafka/{HOST}"), &realm.keytab("kafka")).await;
        realm.add(USER, &realm.keytab(USER)).await;
        realm
    }

    fn keytab(&self, user: &str) -> PathBuf {
        self.directory.join(format!("{user}.keytab"))
    }

    /// Adds a user, whose key is written to a file.
    async fn add(&self, user: &str, keytab: &Path) {
        let add = format!("addprinc -randkey {user}");
        let export = format!("ktadd -k {} {user}", keytab.display());
        for query in [add, export] {
            run(&self.directory, "kadmin.local", &["-r", REALM, "-q", &query]).await;
        }
    }
}

fn command(directory: &Path, program: &str) -> Command {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new(program);
    command
        .env("PATH", format!("{path}:/usr/sbin"))
        .env(KDC_CONFIGURATION, directory.join("kdc.conf"))
        .stdin(Stdio::null());
    command
}

async fn run(directory: &Path, program: &str, arguments: &[&str]) {
    let done = command(directory, program).args(arguments).output().await;
    let done = done.must("run a program of krb5-kdc and krb5-admin-server");
    let errors = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{program} {arguments:?}: {errors}");
}

fn client_settings(port: u16) -> String {
    format!(
        "[libdefaults]\ndefault_realm = {REALM}\ndns_lookup_kdc = false\ndns_lookup_realm = false\n\
         dns_canonicalize_hostname = false\nrdns = false\nudp_preference_limit = 1\n\
         [realms]\n{REALM} = {{\nkdc = {HOST}:{port}\n}}\n"
    )
}

fn kdc_settings(port: u16, directory: &Path) -> String {
    let directory = directory.display();
    format!(
        "[kdcdefaults]\nkdc_listen = {HOST}:{port}\nkdc_tcp_listen = {HOST}:{port}\n\
         [realms]\n{REALM} = {{\ndatabase_name = {directory}/principal\n\
         key_stash_file = {directory}/stash\nacl_file = {directory}/acl\n}}\n\
         [logging]\nkdc = FILE:{directory}/kdc.log\n"
    )
}

/// A private Kafka with a listener for clients that log in by Kerberos (GSSAPI). Its other listener
/// is for the test itself.
///
/// `KRB5_CONFIG` names the file of the realm, in a directory for this realm alone: it is written.
#[derive(Debug)]
pub struct KerberosKafka {
    stack: PrivateStack,
    realm: Realm,
    port: u16,
}

impl KerberosKafka {
    /// Starts one.
    ///
    /// # Panics
    /// If it does not start, or the programs of Kerberos are missing.
    pub async fn up() -> Self {
        let realm = Realm::start().await;
        let [port, kerberos, controller] = [free_port(), free_port(), free_port()];
        let options = std::env::var(JAVA_OPTIONS).unwrap_or_default();
        let configuration = realm.configuration.display();
        let variables = [
            ("ANNALS_KAFKA_CONTROLLER_PORT", controller.to_string()),
            (JAVA_OPTIONS, format!("{options} -Djava.security.krb5.conf={configuration}")),
        ];
        let clients = format!("PLAINTEXT://{HOST}:{port},KERBEROS://{HOST}:{kerberos}");
        let properties = format!(
            "listeners={clients},CONTROLLER://{HOST}:{controller}\nadvertised.listeners={clients}\n\
             listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,\
             KERBEROS:SASL_PLAINTEXT\n\
             listener.name.kerberos.sasl.enabled.mechanisms=GSSAPI\n\
             listener.name.kerberos.gssapi.sasl.jaas.config=\
             com.sun.security.auth.module.Krb5LoginModule required useKeyTab=true storeKey=true \
             keyTab=\"{}\" principal=\"kafka/{HOST}@{REALM}\";\n\
             sasl.kerberos.service.name=kafka\n",
            realm.keytab("kafka").display()
        );
        let stack = PrivateStack::kafka(port, &properties, &variables).await;
        Self { stack, realm, port: kerberos }
    }

    /// The servers, with the listener without login.
    #[must_use]
    pub fn environment(&self) -> &Environment {
        self.stack.environment()
    }

    /// The login of the test's user, with the key in its file.
    #[must_use]
    pub fn login(&self) -> KafkaLogin {
        let keytab = self.realm.keytab(USER).display().to_string();
        KafkaLogin::at(format!("{HOST}:{}", self.port))
            .with("security.protocol", "sasl_plaintext")
            .with("sasl.mechanism", "GSSAPI")
            .with("sasl.kerberos.service.name", "kafka")
            .with("sasl.kerberos.principal", USER)
            .with("sasl.kerberos.keytab", keytab)
    }
}
