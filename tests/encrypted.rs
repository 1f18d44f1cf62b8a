//! The store and the relay connect to PostgreSQL over TLS, to the server that they verify, and as
//! the user of their certificate. What does not fit is an error that names it.

use std::error::Error;
use std::path::Path;

use annals_store::{Append, ExpectedVersion, Store};
use annals_testkit::{
    Authority, CertificateFiles, Component, Must, PrivateStack, RelayProcess, Testbed, Validity,
    account, check, deposited,
};

/// A PostgreSQL that accepts TLS only, and the authority of its certificate.
struct Site {
    authority: Authority,
    stack: PrivateStack,
}

impl Site {
    async fn with(hosts: &[&str], validity: Validity) -> Self {
        let authority = Authority::new();
        let stack = PrivateStack::up(&[Component::Postgres]).await;
        stack.require_tls(&authority, &authority.issue("server", hosts, validity)).await;
        Self { authority, stack }
    }

    fn url(&self, mode: &str, authority: &Path) -> String {
        let url = &self.stack.environment().database_url;
        format!("{url}?sslmode={mode}&sslrootcert={}", authority.display())
    }

    fn url_with(&self, client: &CertificateFiles) -> String {
        let url = self.url("verify-full", &self.authority.file());
        let url = url.replacen("annals:annals@", "certified@", 1);
        format!("{url}&sslcert={}&sslkey={}", client.certificate.display(), client.key.display())
    }
}

/// The error with its causes.
async fn refused(url: &str) -> String {
    let Err(error) = Store::connect(url).await else { panic!("it was accepted: {url}") };
    let causes = std::iter::successors(error.source(), |error| (*error).source());
    let causes: String = causes.map(|error| format!(": {error}")).collect();
    format!("{error}{causes}")
}

/// Whether an error says something, in the words of OpenSSL or of rustls.
fn says(said: &str, part: &str) -> bool {
    let plain = |text: &str| text.to_lowercase().replace(' ', "");
    plain(said).contains(&plain(part))
}

async fn session(store: &Store) -> (bool, String) {
    let session = sqlx::query_as(include_str!("sql/is_encrypted.sql"));
    session.fetch_one(store.pool()).await.must("ask about the connection")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn store_and_relay_connect_to_the_server_that_they_verify_as_the_user_of_their_certificate() {
    let site = Site::with(&["127.0.0.1"], Validity::Now).await;
    let root = site.authority.file();
    let store = Store::connect(&site.url("verify-full", &root)).await.must("connect");
    assert_eq!(session(&store).await, (true, String::new()));
    // Encrypted, but any server could have answered.
    let plain = Store::connect(&site.stack.environment().database_url).await.must("connect");
    assert!(session(&plain).await.0);

    let another = Authority::new();
    let said = refused(&site.url("verify-full", &another.file())).await;
    assert!(says(&said, "certificate") && says(&said, "sslrootcert"), "{said}");
    let said = refused(&site.url("verify-full", Path::new("/nowhere/root.pem"))).await;
    assert!(said.contains("/nowhere/root.pem"), "{said}");
    let said = refused(&site.url("disable", &root)).await;
    assert!(said.contains("no encryption"), "{said}");

    let client = site.authority.issue("certified", &[], Validity::Now);
    let certified = Store::connect(&site.url_with(&client)).await.must("connect");
    assert_eq!(session(&certified).await, (true, "/CN=certified".to_owned()));
    let without = site.url("verify-full", &root).replacen("annals:annals@", "certified@", 1);
    let said = refused(&without).await;
    assert!(said.contains("client certificate"), "{said}");
    let of_another = another.issue("certified", &[], Validity::Now);
    let ended = site.authority.issue("ended", &[], Validity::Ended);
    let other_name = site.authority.issue("someone", &[], Validity::Now);
    for (client, part) in
        [(&of_another, "unknown ca"), (&ended, "expired"), (&other_name, "certified")]
    {
        let said = refused(&site.url_with(client)).await;
        let is_closed = said.contains("closed the connection") && said.contains("(sslcert)");
        assert!(says(&said, part) || is_closed, "{part} not in {said}");
    }
    a_relay_publishes(&site, &client).await;
}

async fn a_relay_publishes(site: &Site, client: &CertificateFiles) {
    let mut environment = site.stack.environment().clone();
    environment.database_url = site.url("verify-full", &site.authority.file());
    let bed = Testbed::on("encrypted", environment).await;
    let url = site.url_with(client).replacen("/annals?", &format!("/{}?", bed.name()), 1);
    let follower = bed.follow();
    let mut relay = RelayProcess::start(&bed.relay().database(&url));
    let append = Append::to(&account("a"), ExpectedVersion::NoStream, [deposited(1)]);
    bed.store().append(&append).await.must("append");
    follower.until_count(1).await;
    assert!(relay.terminate().await.success());
    assert_eq!(check(&bed.history(Vec::new()).await), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_for_another_host_and_one_that_has_ended_are_refused() {
    let site = Site::with(&["db.example"], Validity::Now).await;
    let root = site.authority.file();
    let said = refused(&site.url("verify-full", &root)).await;
    assert!(says(&said, "mismatch") || says(&said, "not valid for"), "{said}");
    Store::connect(&site.url("verify-ca", &root)).await.must("connect without the host's name");
    let ended = site.authority.issue("ended", &["127.0.0.1"], Validity::Ended);
    site.stack.renew_certificate(&site.authority, &ended).await;
    let said = refused(&site.url("verify-full", &root)).await;
    assert!(says(&said, "expired"), "{said}");
}
