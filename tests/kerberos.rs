//! A Kafka whose clients log in by Kerberos: relay, commands and consumers do, with a key in a
//! file, and a refused login is named.

use annals_consumer::Consumer;
use annals_store::{Append, ExpectedVersion};
use annals_testkit::{
    CATEGORY, HttpAnswer, KafkaLogin, KerberosKafka, Must, RelayProcess, RelaySettings, Testbed,
    account, check, deposited, in_time,
};

use crate::secured_kafka::{PROPERTIES, consumer_settings};

const ERRORS: i32 = 3;

fn relay(bed: &Testbed, login: &KafkaLogin) -> RelaySettings {
    bed.relay().impatient().kafka(&login.brokers).variable(PROPERTIES, &login.to_toml())
}

async fn append(bed: &Testbed) {
    let append = Append::to(&account("a"), ExpectedVersion::Any, [deposited(1)]);
    bed.store().append(&append).await.must("append");
}

/// Needs relay and consumer with the feature `gssapi`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of make test-kafka-security"]
async fn relay_commands_and_consumers_log_in_by_kerberos() {
    let kafka = KerberosKafka::up().await;
    let bed = Testbed::on("kerberos", kafka.environment().clone()).await;
    let login = kafka.login();
    append(&bed).await;
    let follower = bed.follow();
    let mut running = RelayProcess::start(&relay(&bed, &login).long_transactions());
    follower.until_count(1).await;
    HttpAnswer::until(running.http().await, "/health/ready", 200).await;
    let (code, said) = relay(&bed, &login).run_for_code(&["check", "--json"]).await;
    assert_ne!(code, ERRORS, "{said}");
    let planned = relay(&bed, &login).run_for_code(&["topics", "plan"]).await;
    assert_eq!(planned, (0, "0 differences\n".to_owned()));
    assert!(running.terminate().await.success());
    assert!(!running.has_event("outage_began"), "{}", running.text());

    let topic = bed.topic(CATEGORY);
    let topics = [topic.as_str()];
    let consumer = Consumer::connect(consumer_settings(&login)).read_to_end(&topics);
    let mut consumer = in_time(consumer).await.must("read a topic");
    assert_eq!(in_time(consumer.read_remaining()).await.must("read").len(), 1);
    assert_eq!(check(&bed.history(Vec::new()).await), []);

    // Without the tickets of the others.
    let tickets = format!("FILE:{}.tickets", login.properties["sasl.kerberos.keytab"]);
    let unknown = login.with("sasl.kerberos.principal", "nobody");
    let settings = relay(&bed, &unknown).in_directory("unknown").variable("KRB5CCNAME", &tickets);
    let mut refused = RelayProcess::start(&settings);
    refused.keeps_waiting_for("kafka").await;
    refused.kill().await;
    // In the words of `kinit`.
    assert!(refused.text().contains("no suitable keys for nobody"), "{}", refused.text());
}
