//! Kafka as services provide it: each way to log in over TLS works for the relay, its commands and
//! consumers, with exactly the rights that are documented; and what is refused is named.
//!
//! The second half is a campaign of its own, `make test-kafka-security`.

use std::path::Path;
use std::time::Duration;

use Operation::{Create, Describe, DescribeConfigs, Read, Write};
use annals_consumer::{Consumer, ConsumerSettings};
use annals_store::{Append, ExpectedVersion};
use annals_testkit::{
    Authority, CATEGORY, HttpAnswer, KafkaLogin, Must, Operation, RelayProcess, RelaySettings,
    Resource, SecureKafka, Testbed, USER, Validity, account, check, deposited, grant, in_time,
    until, withdraw,
};

use crate::consumer_logs;

pub(crate) const PROPERTIES: &str = "ANNALS_RELAY__KAFKA__PROPERTIES";
const ERRORS: i32 = 3;
/// OpenSSL's own variables.
const AUTHORITY_VARIABLES: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];
/// Time enough for a request that is refused.
const REFUSED: Duration = Duration::from_secs(2);

/// A broker, and a test bed whose relay has the rights that relay.example.toml lists.
struct Site {
    // Dropped first: it removes its topics.
    bed: Testbed,
    kafka: SecureKafka,
}

impl Site {
    async fn new(label: &str) -> Self {
        let kafka = SecureKafka::up("").await;
        let bed = Testbed::on(label, kafka.environment().clone()).await;
        let site = Self { bed, kafka };
        let events = [Read, Write, Describe, DescribeConfigs, Create];
        site.grant(Resource::Topics(&site.bed.topic_prefix()), &events).await;
        let claims = site.bed.claims_topic();
        site.grant(Resource::Topics(&claims), &events).await;
        site.grant(Resource::TransactionalIds(&site.ids()), &[Write, Describe]).await;
        site
    }

    /// The topics of checkpoints begin so.
    fn checkpoints(&self) -> String {
        format!("{}test-checkpoints", self.bed.topic_prefix())
    }

    /// The transactional ids begin so.
    fn ids(&self) -> String {
        format!("{}test", self.bed.topic_prefix())
    }

    async fn grant(&self, of: Resource<'_>, operations: &[Operation]) {
        grant(&self.kafka.environment().kafka, USER, of, operations).await;
    }

    async fn withdraw(&self, of: Resource<'_>, operations: &[Operation]) {
        withdraw(&self.kafka.environment().kafka, USER, of, operations).await;
    }

    fn relay(&self, login: &KafkaLogin) -> RelaySettings {
        self.bed.relay().impatient().kafka(&login.brokers).variable(PROPERTIES, &login.to_toml())
    }

    async fn append(&self) {
        let append = Append::to(&account("a"), ExpectedVersion::Any, [deposited(1)]);
        self.bed.store().append(&append).await.must("append");
    }
}

pub(crate) fn consumer_settings(login: &KafkaLogin) -> ConsumerSettings {
    let settings = ConsumerSettings::new(&login.brokers);
    login.properties.iter().fold(settings, |settings, (name, value)| {
        settings.option(name, value).must("set an option")
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relay_commands_and_consumers_log_in_by_password_and_by_certificate() {
    let site = Site::new("secured").await;
    let client = site.kafka.authority().issue(USER, &[], Validity::Now);
    let certificates = [site.kafka.certificate(&client), site.kafka.certificate_over_ipv6(&client)];
    let logins = [vec![site.kafka.scram()], certificates.to_vec()].concat();
    works(&site, &logins).await;
    consumers_say_why_they_are_refused(&site).await;
    check_names_missing_rights(&site).await;
    assert_eq!(check(&site.bed.history(Vec::new()).await), []);
}

/// Needs relay and consumer with the feature `oidc`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of make test-kafka-security"]
async fn relay_commands_and_consumers_log_in_by_a_token_of_a_provider() {
    let site = Site::new("token").await;
    works(&site, &[site.kafka.token(), site.kafka.token_over_tls()]).await;
    let secret = site.kafka.token().with("sasl.oauthbearer.client.secret", "wrong");
    let authority = site.kafka.token_over_tls().without("https.ca.location");
    let cases = [("secret", secret, "invalid_client"), ("provider", authority, "certificate")];
    assert_named(&refusals(&site, cases).await);
}

/// Each login publishes one event, is ready, passes `check` and `topics plan`, and reads events.
async fn works(site: &Site, logins: &[KafkaLogin]) {
    let follower = site.bed.follow();
    for (count, login) in (1..).zip(logins) {
        let settings = site.relay(login).long_transactions();
        site.append().await;
        let mut relay = RelayProcess::start(&settings);
        follower.until_count(count).await;
        HttpAnswer::until(relay.http().await, "/health/ready", 200).await;
        assert!(relay.terminate().await.success());
        assert!(!relay.has_event("outage_began"), "{}", relay.text());
    }
    for login in logins {
        let (code, said) = site.relay(login).run_for_code(&["check", "--json"]).await;
        assert_eq!(code, 0, "{said}");
        // The login may not describe the cluster.
        assert!(said.contains("the settings of the brokers cannot be read"), "{said}");
        let (code, said) = site.relay(login).run_for_code(&["topics", "plan"]).await;
        assert_eq!((code, said.as_str()), (0, "0 differences\n"));
        let topic = site.bed.topic(CATEGORY);
        let topics = [topic.as_str()];
        let consumer = Consumer::connect(consumer_settings(login)).read_to_end(&topics);
        let mut consumer = in_time(consumer).await.must("read a topic");
        assert_eq!(in_time(consumer.read_remaining()).await.must("read").len(), logins.len());
    }
}

/// Consumers wait, and log the reason once.
async fn consumers_say_why_they_are_refused(site: &Site) {
    consumer_logs::collect();
    let another = Authority::new();
    let ended = site.kafka.authority().issue("ended", &[], Validity::Ended);
    let of_another = another.issue("other", &[], Validity::Now);
    let scram = site.kafka.scram();
    let password = scram.clone().with("sasl.password", "wrong");
    let authority = scram.with("ssl.ca.location", another.file().display().to_string());
    let topic = site.bed.topic(CATEGORY);
    let topics = [topic.as_str()];
    for (login, part) in [
        (password, "invalid credentials"),
        (authority, "certificate verify failed"),
        (site.kafka.ended_server(), "certificate verify failed"),
        (site.kafka.certificate(&ended), "certificate"),
        (site.kafka.certificate(&of_another), "certificate"),
    ] {
        let texts = ["waiting for Kafka", &login.brokers, part];
        let before = consumer_logs::count(&texts);
        let consumer = Consumer::connect(consumer_settings(&login));
        let mut consumer = consumer.assign_from_beginning(&topics).must("make a consumer");
        let reading = tokio::spawn(async move { consumer.next().await });
        until(part, async || consumer_logs::count(&texts) > before).await;
        assert!(!reading.is_finished(), "{part}");
        reading.abort();
    }
}

/// `check` names each right that was withdrawn.
async fn check_names_missing_rights(site: &Site) {
    let (prefix, claims, ids) = (site.bed.topic_prefix(), site.bed.claims_topic(), site.ids());
    site.withdraw(Resource::Topics(&prefix), &[Write, DescribeConfigs]).await;
    site.withdraw(Resource::Topics(&claims), &[Read]).await;
    site.withdraw(Resource::TransactionalIds(&ids), &[Write]).await;
    let login = site.kafka.scram();
    let (code, said) = site.relay(&login).run_for_code(&["check"]).await;
    assert_eq!(code, ERRORS, "{said}");
    let (topic, checkpoints) = (site.bed.topic(CATEGORY), site.bed.checkpoint_topic().await);
    for part in [
        format!(
            "error    kafka     the login lacks Write on topic {topic}: allow it: kafka-acls.sh"
        ),
        format!("the login lacks Write on topic {checkpoints}: "),
        format!("the login lacks Read on topic {claims}: "),
        format!("the login lacks Write on the transactional ids that begin with {ids}: "),
        format!("warning  kafka     the settings of topic {topic} cannot be read: "),
    ] {
        assert!(said.contains(&part), "{part} not in {said}");
    }
    assert_eq!(said.matches("the login lacks").count(), 4, "{said}");
}

/// What was not named: a case, and what was said instead.
type Unnamed = Vec<(&'static str, String)>;

/// Starts a relay with each login, which is refused. What it should say comes with each.
async fn refusals(
    site: &Site,
    cases: impl IntoIterator<Item = (&'static str, KafkaLogin, &str)>,
) -> Unnamed {
    let mut unnamed = Unnamed::new();
    for (name, login, part) in cases {
        let settings = site.relay(&login).in_directory(name);
        let mut relay = RelayProcess::start(&settings);
        relay.keeps_waiting_for("kafka").await;
        relay.kill().await;
        if !relay.text().contains(part) {
            unnamed.push((name, relay.text()));
        }
    }
    unnamed
}

fn assert_named(unnamed: &Unnamed) {
    assert!(unnamed.is_empty(), "{unnamed:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of make test-kafka-security"]
async fn a_refused_login_is_named() {
    let site = Site::new("refused_logins").await;
    let another = Authority::new();
    let ended = site.kafka.authority().issue("ended", &[], Validity::Ended);
    let of_another = another.issue("other", &[], Validity::Now);
    let scram = site.kafka.scram();
    let plain = site.kafka.certificate(&ended).with("security.protocol", "plaintext");
    let no_login = scram.clone().with("security.protocol", "ssl");
    // The same address by another name.
    let elsewhere =
        KafkaLogin { brokers: scram.brokers.replace("127.0.0.1", "127.1"), ..scram.clone() };
    let mechanism = scram.clone().with("sasl.mechanism", "PLAIN");
    let password = scram.clone().with("sasl.password", "wrong");
    let authority = scram.clone().with("ssl.ca.location", another.file().display().to_string());
    let cases = [
        ("password", password, "invalid credentials"),
        ("mechanism", mechanism, "SCRAM-SHA-512"),
        ("authority", authority, "certificate verify failed"),
        ("host", elsewhere, "certificate verify failed"),
        ("ended_server", site.kafka.ended_server(), "certificate verify failed"),
        ("plain", plain, "security.protocol"),
        ("no_login", no_login, "security.protocol"),
        ("ended", site.kafka.certificate(&ended), "certificate"),
        ("unknown", site.kafka.certificate(&of_another), "certificate"),
    ];
    let unnamed = refusals(&site, cases).await;
    let refused = site.relay(&scram.clone().with("sasl.password", "wrong"));
    let (code, said) = refused.run_for_code(&["check", "--json"]).await;
    assert!(code == ERRORS && said.contains("invalid credentials"), "{said}");
    assert_named(&unnamed);
}

/// Only the log of librdkafka names the authorities of the system: no test can have a certificate
/// of theirs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of make test-kafka-security"]
async fn the_authorities_of_the_system_are_trusted_and_those_of_openssls_variables() {
    let site = Site::new("authorities").await;
    let login = site.kafka.scram().without("ssl.ca.location");
    let without_variables = |settings: RelaySettings| {
        AUTHORITY_VARIABLES.iter().fold(settings, |settings, name| settings.without_variable(name))
    };
    let settings = without_variables(site.relay(&login.clone().with("debug", "security")));
    let settings = settings.variable("ANNALS_RELAY__LOG__LEVEL", "info,librdkafka=debug");
    let mut relay = RelayProcess::start(&settings.in_directory("system"));
    let trusted = relay.printed("Setting default CA certificate location for kafka to").await;
    assert!(trusted.split('"').any(|part| Path::new(part).is_absolute()), "{trusted}");
    relay.printed("certificate verify failed").await;
    relay.kill().await;
    let file = site.kafka.authority().file().display().to_string();
    let follower = site.bed.follow();
    site.append().await;
    let [of_file, of_directory] = AUTHORITY_VARIABLES;
    let settings = site.relay(&login).variable(of_file, &file).without_variable(of_directory);
    let mut relay = RelayProcess::start(&settings);
    follower.until_count(1).await;
    assert!(relay.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of make test-kafka-security"]
async fn a_right_that_is_missing_is_named_with_its_resource() {
    let site = Site::new("missing_rights").await;
    let login = site.kafka.scram();
    let (checkpoints, claims, ids) = (site.checkpoints(), site.bed.claims_topic(), site.ids());
    let (prefix, topic) = (site.bed.topic_prefix(), site.bed.topic(CATEGORY));
    let cases = [
        ("create", Resource::Topics(&prefix), Create, &checkpoints),
        ("read", Resource::Topics(&prefix), Read, &checkpoints),
        ("claims", Resource::Topics(&claims), Read, &claims),
        ("claims_write", Resource::Topics(&claims), Write, &claims),
        ("ids", Resource::TransactionalIds(&ids), Write, &ids),
        ("events", Resource::Topics(&prefix), Write, &topic),
    ];
    site.append().await;
    let follower = site.bed.follow();
    let mut unnamed = Unnamed::new();
    for (count, (name, of, operation, resource)) in cases.into_iter().enumerate() {
        site.withdraw(of, &[operation]).await;
        let mut relay = RelayProcess::start(&site.relay(&login).in_directory(name));
        relay.printed("uthorization failed").await;
        let is_named = |line: &str| line.contains("uthorization failed") && line.contains(resource);
        if !relay.text().lines().any(is_named) {
            unnamed.push((name, relay.text()));
        }
        site.grant(of, &[operation]).await;
        // The next start has topics and checkpoints to read, and an event to publish.
        follower.until_count(count + 1).await;
        site.append().await;
        relay.kill().await;
    }
    assert_named(&unnamed);
    site.withdraw(Resource::Topics(&prefix), &[Read]).await;
    consumers_wait_for_rights(&site, &login).await;
}

/// Consumers that may not read the topic, or not use their group, wait and go on.
async fn consumers_wait_for_rights(site: &Site, login: &KafkaLogin) {
    let topic = site.bed.topic(CATEGORY);
    let topics = [topic.as_str()];
    let settings = consumer_settings(login);
    let mut assigned =
        Consumer::connect(settings.clone()).assign_from_beginning(&topics).must("make a consumer");
    let mut member =
        Consumer::connect(settings).subscribe("a_group", &topics).must("make a consumer");
    let early = tokio::time::timeout(REFUSED, assigned.next()).await;
    assert!(early.is_err(), "{early:?}");
    site.grant(Resource::Topics(&topic), &[Read]).await;
    in_time(assigned.next()).await.must("read").must("have an event");
    let early = tokio::time::timeout(REFUSED, member.next()).await;
    assert!(early.is_err(), "{early:?}");
    site.grant(Resource::Group("a_group"), &[Read]).await;
    in_time(member.next()).await.must("read").must("have an event");
}
