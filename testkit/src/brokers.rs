//! Kafka as tests need it: behind a faulty link, with a login, with three brokers.

use tokio::sync::{Mutex, MutexGuard};

use crate::environment::Environment;
use crate::faulty_link::FaultyLink;
use crate::kafka;
use crate::must::Must;
use crate::stack::{Component, Ending, PrivateStack, free_port};

/// A private Kafka with two listeners: one for the test, one for clients under test.
#[derive(Debug)]
pub struct TwoDoors {
    stack: PrivateStack,
    ports: [u16; 3],
    /// The advertised address of the other listener, and its protocol.
    other: (u16, &'static str),
    link: Option<FaultyLink>,
}

impl TwoDoors {
    /// Starts one whose other listener is reached through a [`link`](Self::link) only. `properties`
    /// are further lines of the broker's properties.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn linked(properties: &str) -> Self {
        let ports = [free_port(), free_port(), free_port()];
        let link = FaultyLink::to_broker(&format!("127.0.0.1:{}", ports[2])).await;
        let other = (link.port(), "PLAINTEXT");
        Self::start(ports, other, Some(link), properties).await
    }

    /// Starts one whose other listener requires a login with user and password (SASL, PLAIN).
    /// `properties` are further lines of the broker's properties.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn with_login(properties: &str) -> Self {
        let ports = [free_port(), free_port(), free_port()];
        Self::start(ports, (ports[2], "SASL_PLAINTEXT"), None, properties).await
    }

    async fn start(
        ports: [u16; 3],
        other: (u16, &'static str),
        link: Option<FaultyLink>,
        properties: &str,
    ) -> Self {
        let [port, controller, _] = ports;
        let properties = listeners(ports, other) + properties;
        let controller = [("ANNALS_KAFKA_CONTROLLER_PORT", controller.to_string())];
        let stack = PrivateStack::kafka(port, &properties, &controller).await;
        Self { stack, ports, other, link }
    }

    /// The servers, with the first listener.
    #[must_use]
    pub fn environment(&self) -> &Environment {
        self.stack.environment()
    }

    /// The address of the other listener.
    #[must_use]
    pub fn other(&self) -> String {
        format!("127.0.0.1:{}", self.other.0)
    }

    /// The link to the other listener.
    ///
    /// # Panics
    /// If there is no link.
    #[must_use]
    pub fn link(&self) -> &FaultyLink {
        self.link.as_ref().must("find the link")
    }

    /// Ends the broker and starts it with other further properties.
    ///
    /// # Panics
    /// If it does not end or does not start.
    pub async fn restart_with(&self, properties: &str) {
        self.stack.end(Component::Kafka, Ending::Orderly).await;
        self.stack.set_kafka_properties(&(listeners(self.ports, self.other) + properties));
        self.stack.start(Component::Kafka).await;
    }
}

fn listeners([port, controller, other]: [u16; 3], (advertised, protocol): (u16, &str)) -> String {
    format!(
        "listeners=PLAINTEXT://127.0.0.1:{port},OTHER://127.0.0.1:{other},CONTROLLER://127.0.0.1:{controller}\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:{port},OTHER://127.0.0.1:{advertised}\n\
         listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,OTHER:{protocol}\n"
    )
}

/// Three brokers keep two cores busy while they start, elect leaders and rejoin. Several such
/// clusters at once take minutes for what one of them does in seconds.
static ONE_CLUSTER: Mutex<()> = Mutex::const_new(());

/// A private Kafka of three brokers, the first of which is the controller. One at a time.
#[derive(Debug)]
pub struct ThreeBrokers {
    // Dropped first: these brokers need the controller for their end.
    others: [PrivateStack; 2],
    first: PrivateStack,
    environment: Environment,
    // Dropped last: another cluster starts once this one has ended.
    _turn: MutexGuard<'static, ()>,
}

impl ThreeBrokers {
    /// Waits until no other test of this process has such a cluster, starts the brokers, and waits
    /// until all have joined. Topics have a replica on each of the three brokers, internal topics
    /// included, and every replica counts. `properties` are further lines of each broker's
    /// properties.
    ///
    /// # Panics
    /// If they do not start.
    pub async fn up(properties: &str) -> Self {
        Self::up_after(properties, async |_first| {}).await
    }

    /// The same; `alone` ends while the first broker is the only one of the cluster.
    ///
    /// # Panics
    /// If they do not start.
    pub async fn up_after(properties: &str, alone: impl AsyncFnOnce(&Environment)) -> Self {
        let turn = ONE_CLUSTER.lock().await;
        let properties = format!(
            "offsets.topic.replication.factor=3\ntransaction.state.log.replication.factor=3\n\
             default.replication.factor=3\n{properties}"
        );
        let controller = [("ANNALS_KAFKA_CONTROLLER_PORT", free_port().to_string())];
        let first = PrivateStack::kafka(free_port(), &properties, &controller).await;
        alone(first.environment()).await;
        let join = |number: u8| {
            let home = first.path().display().to_string();
            let (properties, port) = (properties.clone(), free_port());
            async move {
                let node =
                    [("ANNALS_KAFKA_NODE", number.to_string()), ("ANNALS_KAFKA_JOINS", home)];
                PrivateStack::kafka(port, &properties, &node).await
            }
        };
        let (second, third) = tokio::join!(join(2), join(3));
        let others = [second, third];
        let mut environment = first.environment().clone();
        for other in &others {
            environment.kafka = format!("{},{}", environment.kafka, other.environment().kafka);
        }
        kafka::until_brokers(&environment.kafka, 3).await;
        Self { others, first, environment, _turn: turn }
    }

    /// The servers.
    #[must_use]
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// Ends the second and the third broker.
    ///
    /// # Panics
    /// If they do not end.
    pub async fn end_two(&self, ending: Ending) {
        let [second, third] = &self.others;
        tokio::join!(second.end(Component::Kafka, ending), third.end(Component::Kafka, ending));
    }

    /// Starts the second and the third broker again.
    ///
    /// # Panics
    /// If they do not start.
    pub async fn start_two(&self) {
        let [second, third] = &self.others;
        tokio::join!(second.start(Component::Kafka), third.start(Component::Kafka));
        kafka::until_brokers(&self.first.environment().kafka, 3).await;
    }
}
