//! A Kafka as services provide it: TLS on each listener for clients, three ways to log in, and
//! rights that have to be granted.

use std::collections::BTreeMap;

use crate::access::set_password;
use crate::certificates::{Authority, CertificateFiles, Validity};
use crate::environment::Environment;
use crate::must::Must;
use crate::openid::OpenIdProvider;
use crate::stack::{PrivateStack, free_port};
use crate::tls_proxy::{Admission, TlsProxy};

/// The user of the test, in each of the ways to log in.
pub const USER: &str = "relay";
const PASSWORD: &str = "the_password";
const HOST: &str = "127.0.0.1";
const SIX: &str = "[::1]";
/// Options of the broker's Java, which `make test` sets, too.
pub(crate) const JAVA_OPTIONS: &str = "ANNALS_JAVA_OPTIONS";

/// The address of a listener, and the properties of clients that log in there.
#[derive(Debug, Clone)]
pub struct KafkaLogin {
    /// `host:port`.
    pub brokers: String,
    /// Properties of librdkafka.
    pub properties: BTreeMap<String, String>,
}

impl KafkaLogin {
    /// Without properties.
    pub(crate) fn at(brokers: String) -> Self {
        Self { brokers, properties: BTreeMap::new() }
    }

    /// Changes a property.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.properties.insert(name.to_owned(), value.into());
        self
    }

    /// Removes a property.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.properties.remove(name);
        self
    }

    /// The properties as a value of the relay's configuration.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let properties = self.properties.iter();
        let properties = properties.map(|(name, value)| format!("{name:?} = {value:?}"));
        format!("{{ {} }}", properties.collect::<Vec<_>>().join(", "))
    }
}

/// A private Kafka with access lists, whose listeners for clients need TLS. A listener without
/// login has all rights, for the test itself.
#[derive(Debug)]
pub struct SecureKafka {
    stack: PrivateStack,
    authority: Authority,
    provider: OpenIdProvider,
    secure_provider: TlsProxy,
    /// Of SCRAM, of tokens, of certificates, of certificates over IPv6, and of a broker whose
    /// certificate has ended.
    ports: [u16; 5],
}

impl SecureKafka {
    /// Starts one. `properties` are further lines of the broker's properties.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn up(properties: &str) -> Self {
        let authority = Authority::new();
        let server = authority.issue("broker", &[HOST], Validity::Now);
        let provider = OpenIdProvider::start(USER, PASSWORD).await;
        let secure_provider =
            TlsProxy::before(&provider.token_url(), &authority, &server, Admission::Anyone);
        let ended = authority.issue("ended_broker", &[HOST], Validity::Ended);
        let ports = [free_port(), free_port(), free_port(), free_port(), free_port()];
        let (port, controller) = (free_port(), free_port());
        let own = listeners(port, controller, ports);
        let own = own + &stores(&authority, &server, &ended) + &logins(&provider.keys_url());
        let properties = own + properties;
        // Since 4.0 a broker asks only providers that its process was allowed to ask.
        let allowed = provider.keys_url();
        let allowed = format!("-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={allowed}");
        let options = std::env::var(JAVA_OPTIONS).unwrap_or_default();
        let variables = [
            ("ANNALS_KAFKA_CONTROLLER_PORT", controller.to_string()),
            (JAVA_OPTIONS, format!("{options} {allowed}")),
        ];
        let stack = PrivateStack::kafka(port, &properties, &variables).await;
        set_password(&stack.environment().kafka, USER, PASSWORD).await;
        Self { stack, authority, provider, secure_provider, ports }
    }

    /// The servers, with the listener without login.
    #[must_use]
    pub fn environment(&self) -> &Environment {
        self.stack.environment()
    }

    /// The authority of the broker's certificate and of those of clients.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// A login with user and password: SCRAM over TLS.
    #[must_use]
    pub fn scram(&self) -> KafkaLogin {
        self.login(0, "sasl_ssl")
            .with("sasl.mechanism", "SCRAM-SHA-512")
            .with("sasl.username", USER)
            .with("sasl.password", PASSWORD)
    }

    /// A login with a token of an OpenID provider, over TLS.
    #[must_use]
    pub fn token(&self) -> KafkaLogin {
        self.login(1, "sasl_ssl")
            .with("sasl.mechanism", "OAUTHBEARER")
            .with("sasl.oauthbearer.method", "oidc")
            .with("sasl.oauthbearer.client.id", USER)
            .with("sasl.oauthbearer.client.secret", PASSWORD)
            .with("sasl.oauthbearer.token.endpoint.url", self.provider.token_url())
    }

    /// The same with a token that comes over TLS, from a provider with a certificate of the
    /// broker's authority.
    #[must_use]
    pub fn token_over_tls(&self) -> KafkaLogin {
        self.token()
            .with("sasl.oauthbearer.token.endpoint.url", self.secure_provider.url())
            .with("https.ca.location", self.authority.file().display().to_string())
    }

    /// A login with a certificate.
    #[must_use]
    pub fn certificate(&self, client: &CertificateFiles) -> KafkaLogin {
        certified(self.login(2, "ssl"), client)
    }

    /// The same over IPv6. librdkafka compares the names of a certificate with the address in its
    /// brackets, which never fit: where brokers have no names, it can only verify the authority.
    #[must_use]
    pub fn certificate_over_ipv6(&self, client: &CertificateFiles) -> KafkaLogin {
        let login = self.login(3, "ssl").with("ssl.endpoint.identification.algorithm", "none");
        certified(login, client)
    }

    /// TLS alone, at a listener whose certificate has ended.
    #[must_use]
    pub fn ended_server(&self) -> KafkaLogin {
        self.login(4, "ssl")
    }

    fn login(&self, listener: usize, protocol: &str) -> KafkaLogin {
        let port = self.ports.get(listener).must("find a listener");
        let host = if listener == 3 { SIX } else { HOST };
        KafkaLogin::at(format!("{host}:{port}"))
            .with("security.protocol", protocol)
            .with("ssl.ca.location", self.authority.file().display().to_string())
    }
}

fn certified(login: KafkaLogin, client: &CertificateFiles) -> KafkaLogin {
    login
        .with("ssl.certificate.location", client.certificate.display().to_string())
        .with("ssl.key.location", client.key.display().to_string())
}

fn listeners(port: u16, controller: u16, ports: [u16; 5]) -> String {
    let [scram, token, certificate, six, ended] = ports;
    let clients = format!(
        "PLAINTEXT://{HOST}:{port},SCRAM://{HOST}:{scram},TOKEN://{HOST}:{token},\
         CERTIFICATE://{HOST}:{certificate},SIX://{SIX}:{six},ENDED://{HOST}:{ended}"
    );
    format!(
        "listeners={clients},CONTROLLER://{HOST}:{controller}\nadvertised.listeners={clients}\n\
         listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SCRAM:SASL_SSL,\
         TOKEN:SASL_SSL,CERTIFICATE:SSL,SIX:SSL,ENDED:SSL\n"
    )
}

fn stores(authority: &Authority, server: &CertificateFiles, ended: &CertificateFiles) -> String {
    format!(
        "ssl.keystore.type=PEM\nssl.keystore.location={}\nssl.truststore.type=PEM\n\
         ssl.truststore.location={}\nlistener.name.certificate.ssl.client.auth=required\n\
         listener.name.six.ssl.client.auth=required\n\
         listener.name.ended.ssl.keystore.type=PEM\nlistener.name.ended.ssl.keystore.location={}\n\
         ssl.principal.mapping.rules=RULE:^CN=([^,]+).*$/$1/,DEFAULT\n",
        server.both.display(),
        authority.file().display(),
        ended.both.display()
    )
}

fn logins(keys_url: &str) -> String {
    const MODULES: &str = "org.apache.kafka.common.security";
    format!(
        "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n\
         super.users=User:ANONYMOUS\n\
         listener.name.scram.sasl.enabled.mechanisms=SCRAM-SHA-512\n\
         listener.name.scram.scram-sha-512.sasl.jaas.config={MODULES}.scram.ScramLoginModule required;\n\
         listener.name.token.sasl.enabled.mechanisms=OAUTHBEARER\n\
         listener.name.token.oauthbearer.sasl.jaas.config={MODULES}.oauthbearer.OAuthBearerLoginModule required;\n\
         listener.name.token.oauthbearer.sasl.server.callback.handler.class=\
         {MODULES}.oauthbearer.OAuthBearerValidatorCallbackHandler\n\
         sasl.oauthbearer.jwks.endpoint.url={keys_url}\nsasl.oauthbearer.expected.audience=kafka\n\
         sasl.oauthbearer.expected.issuer=https://provider.test\n"
    )
}
