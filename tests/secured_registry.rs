//! A schema registry over TLS, of a private authority, with a user, a token or a certificate: the
//! relay, its commands and consumers use it, and what it refuses is named.

use std::ops::ControlFlow;
use std::path::Path;

use annals_consumer::{
    Consumer, ConsumerSettings, DeliveredEvent, Projection, RegistrySettings, RunError,
    RunProgress, RunTotals, SchemaRegistry,
};
use annals_store::{Append, ExpectedVersion, StreamName};
use annals_testkit::{
    AccountEvent, Admission, Authority, CATEGORY, CertificateFiles, Follower, Must, RelayProcess,
    RelaySettings, Testbed, TlsProxy, Validity, account, check, deposited, in_time, until,
};
use sqlx::PgConnection;
use tokio_util::sync::CancellationToken;

use crate::consumer_logs;
use crate::projections::{AppliedEvent, add_to_balance};

const ERRORS: i32 = 3;
/// The login `relay:secret`, and one with another password.
const LOGIN: &str = "Basic cmVsYXk6c2VjcmV0";
const OTHER_LOGIN: &str = "Basic cmVsYXk6bm90X3RoZV9zZWNyZXQ=";
const OTHER_PASSWORD: &str = "not_the_secret";
const ENDED_TOKEN: &str = "token_that_has_ended";

struct Site {
    bed: Testbed,
    authority: Authority,
    server: CertificateFiles,
}

impl Site {
    async fn new(label: &str) -> Self {
        let authority = Authority::new();
        let server = authority.issue("registry", &["127.0.0.1"], Validity::Now);
        Self { bed: Testbed::new(label).await, authority, server }
    }

    fn registry(&self, admission: Admission) -> TlsProxy {
        let url = &self.bed.environment().registry_url;
        TlsProxy::before(url, &self.authority, &self.server, admission)
    }

    fn relay(&self, registry: &TlsProxy) -> RelaySettings {
        let authority = self.authority.file().display().to_string();
        let settings = self.bed.relay().impatient().registry(registry.url());
        settings.variable("ANNALS_RELAY__REGISTRY__TLS_AUTHORITY", &authority)
    }

    fn consumer(&self, registry: &TlsProxy) -> RegistrySettings {
        RegistrySettings::new(registry.url()).authority(&pem(&self.authority.file()))
    }

    async fn append(&self) {
        let append = Append::to(&account("a"), ExpectedVersion::Any, [deposited(1)]);
        self.bed.store().append(&append).await.must("append");
    }

    /// Reads the first event.
    async fn decodes(&self, settings: &RegistrySettings) {
        let registry = SchemaRegistry::connect(settings).must("use the registry");
        let topic = self.bed.topic(CATEGORY);
        let kafka = ConsumerSettings::new(&self.bed.environment().kafka);
        let topics = [topic.as_str()];
        let consumer = Consumer::connect(kafka).read_to_end(&topics);
        let mut consumer = in_time(consumer).await.must("read a topic");
        let first = in_time(consumer.next()).await.must("read").must("have an event");
        let decoded = in_time(first.decode::<AccountEvent>(&registry)).await.must("decode");
        assert!(matches!(decoded, AccountEvent::MoneyDeposited(_)), "{decoded:?}");
    }
}

/// Settings of a relay that shows a certificate to the registry.
fn certified(settings: RelaySettings, client: &CertificateFiles) -> RelaySettings {
    let file = |path: &Path| path.display().to_string();
    settings
        .variable("ANNALS_RELAY__REGISTRY__TLS_CERTIFICATE", &file(&client.certificate))
        .variable("ANNALS_RELAY__REGISTRY__TLS_KEY", &file(&client.key))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relay_commands_and_consumers_use_a_registry_by_user_token_and_certificate() {
    let site = Site::new("registry_logins").await;
    let follower = site.bed.follow();
    let client = site.authority.issue("relay", &[], Validity::Now);
    let basic = site.registry(Admission::Header(LOGIN.to_owned()));
    let token = site.registry(Admission::Header("Bearer the_token".to_owned()));
    let certificate = site.registry(Admission::Certificate);
    let with_login = |url: &str| url.replacen("://", "://relay:secret@", 1);
    let cases = [
        (
            site.relay(&basic).registry(&with_login(basic.url())),
            RegistrySettings::new(with_login(basic.url())).authority(&pem(&site.authority.file())),
        ),
        (
            site.relay(&token).variable("ANNALS_RELAY__REGISTRY__TOKEN", "the_token"),
            site.consumer(&token).token("the_token"),
        ),
        (
            certified(site.relay(&certificate), &client),
            site.consumer(&certificate)
                .client_certificate(&pem(&client.certificate), &pem(&client.key)),
        ),
    ];
    for (count, (settings, consumer)) in (1..).zip(cases) {
        site.append().await;
        let mut relay = RelayProcess::start(&settings);
        follower.until_count(count).await;
        assert!(relay.terminate().await.success());
        assert!(!relay.has_event("registry_unavailable"), "{}", relay.text());
        let (code, said) = settings.run_for_code(&["check", "--json"]).await;
        assert_eq!(code, 0, "{said}");
        site.decodes(&consumer).await;
    }
    assert_eq!(check(&site.bed.history(Vec::new()).await), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_login_and_a_certificate_that_is_not_trusted_are_named() {
    let site = Site::new("registry_refused").await;
    let basic = site.registry(Admission::Header(LOGIN.to_owned()));
    let certificate = site.registry(Admission::Certificate);
    let ended = site.authority.issue("ended", &[], Validity::Ended);
    let file = |name: &str| format!("/nowhere/{name}");
    let cases = [
        (site.relay(&basic), "401"),
        (site.bed.relay().registry(basic.url()), "certificate verify failed"),
        (certified(site.relay(&certificate), &ended), "expired"),
        (site.relay(&certificate), "certificate required"),
        (
            site.relay(&basic).variable("ANNALS_RELAY__REGISTRY__TLS_AUTHORITY", &file("root")),
            "registry.tls_authority names /nowhere/root",
        ),
    ];
    for (settings, part) in cases {
        let (code, said) = settings.run_for_code(&["check", "--json"]).await;
        // In TLS 1.3 a server refuses a certificate behind the handshake, and closes: a client that
        // still writes then finds a closed connection, and not the reason.
        let is_closed = ["expired", "certificate required"].contains(&part)
            && said.contains("error sending request");
        assert!(code == ERRORS && (said.contains(part) || is_closed), "{part} not in {said}");
    }
}

/// Two servers before the registry, which ask for a login and for a certificate, and whom they
/// refuse.
struct Refusals {
    site: Site,
    login: TlsProxy,
    certificate: TlsProxy,
    ended: CertificateFiles,
}

impl Refusals {
    async fn new(label: &str) -> Self {
        let site = Site::new(label).await;
        let login = site.registry(Admission::Header(LOGIN.to_owned()));
        let certificate = site.registry(Admission::Certificate);
        let ended = site.authority.issue("ended", &[], Validity::Ended);
        Self { site, login, certificate, ended }
    }

    fn url_with_another_password(&self) -> String {
        self.login.url().replacen("://", &format!("://relay:{OTHER_PASSWORD}@"), 1)
    }

    /// Each as a category, with the settings of a relay and what it says.
    fn of_relays(&self) -> [(&'static str, RelaySettings, &'static str); 4] {
        let (site, login) = (&self.site, &self.login);
        let token = site.relay(login).variable("ANNALS_RELAY__REGISTRY__TOKEN", ENDED_TOKEN);
        let authority = site.bed.relay().impatient().registry(login.url());
        let ended = certified(site.relay(&self.certificate), &self.ended);
        [
            ("password", site.relay(login).registry(&self.url_with_another_password()), "401"),
            ("token", token, "401"),
            ("authority", authority, "certificate verify failed"),
            ("ended", ended, ""),
        ]
    }

    /// Each with the settings of a consumer, the server, and what it says.
    fn of_consumers(&self) -> [(RegistrySettings, &TlsProxy, &'static str); 5] {
        let (site, login, certificate) = (&self.site, &self.login, &self.certificate);
        let (ended, key) = (pem(&self.ended.certificate), pem(&self.ended.key));
        let ended = site.consumer(certificate).client_certificate(&ended, &key);
        [
            (self.with_another_password(), login, "refuses the login"),
            (site.consumer(login).token(ENDED_TOKEN), login, "RegistrySettings::token"),
            (RegistrySettings::new(login.url()), login, "RegistrySettings::authority"),
            (ended, certificate, "RegistrySettings::client_certificate"),
            (site.consumer(certificate), certificate, "RegistrySettings::client_certificate"),
        ]
    }

    fn with_another_password(&self) -> RegistrySettings {
        let settings = RegistrySettings::new(self.url_with_another_password());
        settings.authority(&pem(&self.site.authority.file()))
    }
}

fn pem(file: &Path) -> Vec<u8> {
    std::fs::read(file).must("read a certificate or a key")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_registry_refuses_a_relay_waits_under_its_cause_and_is_published_afterwards() {
    let refusals = Refusals::new("registry_refuses_relays").await;
    let cases = refusals.of_relays();
    let bed = &refusals.site.bed;
    let categories = cases.each_ref().map(|(category, ..)| *category);
    let topics = categories.map(|category| bed.topic(category));
    let follower =
        Follower::start(&bed.environment().kafka, &topics.each_ref().map(String::as_str));
    for (category, settings, part) in &cases {
        // The schema is new under each topic.
        let stream = StreamName::new(format!("{category}-a")).must("name a stream");
        let event = deposited(1).for_category(stream.category());
        let append = Append::to(&stream, ExpectedVersion::Any, [event]);
        bed.store().append(&append).await.must("append");
        let mut relay = RelayProcess::start(settings);
        let line = relay.quarantines_for("registry", category).await;
        assert!(line.contains(part), "{part} not in {line}");
        assert!(relay.terminate().await.success());
        let text = relay.text();
        for secret in [OTHER_PASSWORD, ENDED_TOKEN] {
            assert!(!text.contains(secret), "{text}");
        }
    }
    assert_eq!(follower.count(), 0);
    let mut relay = RelayProcess::start(&bed.relay());
    follower.until_count(categories.len()).await;
    assert!(relay.terminate().await.success());
    assert_eq!(check(&bed.history_of(&categories, Vec::new()).await), []);
}

async fn apply(
    connection: &mut PgConnection,
    events: &[DeliveredEvent<AccountEvent>],
) -> Result<(), sqlx::Error> {
    for DeliveredEvent { data, delivered } in events {
        let (version, event_id) = (delivered.version.get(), delivered.event_id);
        let applied = AppliedEvent { stream: &delivered.stream, version, event_id };
        add_to_balance(connection, &applied, data).await?;
    }
    Ok(())
}

/// A read model of the topic.
struct Model<'a> {
    site: &'a Site,
    projection: Projection,
}

impl<'a> Model<'a> {
    async fn of(site: &'a Site) -> Self {
        let projection = Projection::new("balances", &[&site.bed.topic(CATEGORY)]);
        let projection = projection.must("name a projection");
        let projection = projection.version(1, include_str!("sql/balances.sql"));
        let projection = projection.must("version it");
        projection.prepare(site.bed.store().pool()).await.must("prepare a projection");
        Self { site, projection }
    }

    /// Runs until everything in the topic is applied, or until it is told to end.
    async fn run(
        &self,
        registry: &RegistrySettings,
        shutdown: &CancellationToken,
    ) -> Result<RunTotals, RunError> {
        let registry = SchemaRegistry::connect(registry).must("use the registry");
        let settings = ConsumerSettings::new(&self.site.bed.environment().kafka);
        let runner = self.projection.runner(self.site.bed.store().pool(), settings, registry);
        let to_the_end = |progress: &RunProgress<'_>| {
            if progress.caught_up { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        runner.run_until(shutdown, to_the_end, apply).await
    }
}

/// Runs until a line of the log has these texts, which `then` follows.
async fn refused(
    model: &Model<'_>,
    settings: &RegistrySettings,
    texts: &[&str],
    then: impl FnOnce(&CancellationToken),
) -> u64 {
    let shutdown = CancellationToken::new();
    let before = consumer_logs::count(texts);
    let named = async {
        until(&texts.join(" "), async || consumer_logs::count(texts) > before).await;
        then(&shutdown);
    };
    let (ended, ()) = tokio::join!(in_time(model.run(settings, &shutdown)), named);
    ended.must("run").events
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_a_registry_refuses_says_what_to_do_and_goes_on_where_it_was() {
    consumer_logs::collect();
    let refusals = Refusals::new("registry_refuses_consumers").await;
    let Refusals { site, login, .. } = &refusals;
    let model = Model::of(site).await;
    let mut relay = RelayProcess::start(&site.bed.relay());
    let follower = site.bed.follow();
    site.append().await;
    follower.until_count(1).await;
    let plain = RegistrySettings::new(&site.bed.environment().registry_url);
    let applied = in_time(model.run(&plain, &CancellationToken::new())).await.must("run");
    assert_eq!(applied.events, 1);
    site.append().await;
    follower.until_count(2).await;
    assert!(relay.terminate().await.success());

    for (settings, server, part) in refusals.of_consumers() {
        let texts = ["WARN", "the schema registry at", server.url(), part];
        let applied = refused(&model, &settings, &texts, CancellationToken::cancel).await;
        assert_eq!(applied, 0, "{part}");
    }
    // The run that waits goes on, once the registry takes its password.
    let texts = ["WARN", login.url(), "refuses the login"];
    let accept = |_: &CancellationToken| login.admits(OTHER_LOGIN);
    let settings = refusals.with_another_password();
    assert_eq!(refused(&model, &settings, &texts, accept).await, 1);
    for secret in [OTHER_PASSWORD, ENDED_TOKEN, "PRIVATE KEY"] {
        assert_eq!(consumer_logs::count(&[secret]), 0, "{secret}");
    }
}
