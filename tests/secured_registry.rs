//! A schema registry over TLS, of a private authority, with a user, a token or a certificate: the
//! relay, its commands and consumers use it, and what it refuses is named.

use annals_consumer::{Consumer, ConsumerSettings, RegistrySettings, SchemaRegistry};
use annals_store::{Append, ExpectedVersion};
use annals_testkit::{
    AccountEvent, Admission, Authority, CATEGORY, CertificateFiles, Must, RelayProcess,
    RelaySettings, Testbed, TlsProxy, Validity, account, check, deposited, in_time,
};

const ERRORS: i32 = 3;

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
        let authority = std::fs::read(self.authority.file()).must("read a certificate");
        RegistrySettings::new(registry.url()).authority(&authority)
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
    let file = |path: &std::path::Path| path.display().to_string();
    settings
        .variable("ANNALS_RELAY__REGISTRY__TLS_CERTIFICATE", &file(&client.certificate))
        .variable("ANNALS_RELAY__REGISTRY__TLS_KEY", &file(&client.key))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relay_commands_and_consumers_use_a_registry_by_user_token_and_certificate() {
    let site = Site::new("registry_logins").await;
    let follower = site.bed.follow();
    let client = site.authority.issue("relay", &[], Validity::Now);
    let basic = site.registry(Admission::Header("Basic cmVsYXk6c2VjcmV0".to_owned()));
    let token = site.registry(Admission::Header("Bearer the_token".to_owned()));
    let certificate = site.registry(Admission::Certificate);
    let with_login = |url: &str| url.replacen("://", "://relay:secret@", 1);
    let cases = [
        (
            site.relay(&basic).registry(&with_login(basic.url())),
            RegistrySettings::new(with_login(basic.url()))
                .authority(&std::fs::read(site.authority.file()).must("read a certificate")),
        ),
        (
            site.relay(&token).variable("ANNALS_RELAY__REGISTRY__TOKEN", "the_token"),
            site.consumer(&token).token("the_token"),
        ),
        (
            certified(site.relay(&certificate), &client),
            site.consumer(&certificate).client_certificate(
                &std::fs::read(&client.certificate).must("read a certificate"),
                &std::fs::read(&client.key).must("read a key"),
            ),
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
    let basic = site.registry(Admission::Header("Basic cmVsYXk6c2VjcmV0".to_owned()));
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
