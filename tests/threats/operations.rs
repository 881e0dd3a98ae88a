//! Rows 64 to 66 and 75 to 86: requests that are rightly signed, and ask for what they may not have.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use conclave::authorization::RawRequest;
use conclave::authorization::issue::{Capability, Delegation};
use serde_json::{Value, json};

use super::server::Server;
use super::servers::{Results, by_alice};
use super::support::{
    DAY, Forge, child, delegation, did, gzip, host, key, key_path, keystore, made, method, now, parent,
};

fn url(path: &str) -> String {
    format!("https://{}{path}", host())
}

fn path_of(url: &str) -> String {
    url.strip_prefix(&format!("https://{}", host()))
        .unwrap()
        .to_owned()
}

fn use_key(path: &str, action: &str, body: &Value) -> RawRequest {
    by_alice("POST", path, action, body)
}

fn sign(path: &str, data: &str) -> Value {
    json!({"type": "SignOperation", "invocationTarget": url(path), "verifyData": data})
}

fn generate(key_type: &str) -> Value {
    json!({"type": "GenerateKeyOperation", "invocationTarget": {"type": key_type}})
}

pub(crate) async fn all(server: &Server, results: &mut Results) {
    uses(server, results).await;
    keys(server, results).await;
    wraps(server, results).await;
    strangers(server, results).await;
    revocations(server, results).await;
    // Ends with nobody here on the list of addresses.
    configuration(server, results).await;
}

/// 75 to 77: the body of a use.
async fn uses(server: &Server, results: &mut Results) {
    let path = key_path();
    let good = sign(path, "aGVsbG8");
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut body = good.clone();
        change(&mut body);
        body
    };
    let long = URL_SAFE_NO_PAD.encode(vec![0; 80_000]);
    for (row, case, body, expected) in [
        (
            75,
            "unknown type",
            changed(&|v| v["type"] = json!("NopeOperation")),
            &[400][..],
        ),
        (
            75,
            "type is an array",
            changed(&|v| v["type"] = json!(["SignOperation"])),
            &[400],
        ),
        (
            75,
            "no type",
            changed(&|v| drop(v.as_object_mut().unwrap().remove("type"))),
            &[400],
        ),
        (75, "one member more", changed(&|v| v["more"] = json!(1)), &[400]),
        (75, "an array", json!([good]), &[400]),
        (
            75,
            "known, not offered",
            changed(&|v| v["type"] = json!("WrapKeyOperation")),
            &[400, 403],
        ),
        (
            76,
            "another key",
            changed(&|v| v["invocationTarget"] = json!(url(&format!("{path}x")))),
            &[400],
        ),
        (
            76,
            "its keystore",
            changed(&|v| v["invocationTarget"] = json!(keystore())),
            &[400],
        ),
        (
            76,
            "an object",
            changed(&|v| v["invocationTarget"] = json!({})),
            &[400],
        ),
        (
            77,
            "missing",
            changed(&|v| drop(v.as_object_mut().unwrap().remove("verifyData"))),
            &[400],
        ),
        (
            77,
            "not base64url",
            changed(&|v| v["verifyData"] = json!("a+/=")),
            &[400],
        ),
        (77, "a number", changed(&|v| v["verifyData"] = json!(7)), &[400]),
        (
            77,
            "too long",
            changed(&|v| v["verifyData"] = json!(long)),
            &[400, 413],
        ),
        (
            77,
            "empty is a message",
            changed(&|v| v["verifyData"] = json!("")),
            &[200],
        ),
    ] {
        let request = use_key(path, "sign", &body);
        results.expect(row, case, expected, &server.send(&request).await);
    }
}

/// 81, 83 and 84: keys of other kinds.
async fn keys(server: &Server, results: &mut Results) {
    let keys = format!("{}/keys", path_of(keystore()));
    let make = |body: &Value| by_alice("POST", &keys, "generateKey", body);
    for (row, case, body, expected) in [
        (
            75,
            "key of an unknown type",
            generate("NopeKey2020"),
            &[400, 403][..],
        ),
        (
            75,
            "key of a type not offered",
            generate("EcdsaSecp256r1VerificationKey2019"),
            &[400, 403],
        ),
    ] {
        results.expect(row, case, expected, &server.send(&make(&body)).await);
    }
    for template in [
        "../{publicKeyMultibase}",
        "https://x/../../{publicKeyMultibase}",
        "{unknown}",
    ] {
        let mut body = generate("Ed25519VerificationKey2020");
        body["invocationTarget"]["publicAliasTemplate"] = json!(template);
        results.expect(81, template, &[400, 403], &server.send(&make(&body)).await);
    }
    let answer = server.send(&make(&generate("X25519KeyAgreementKey2020"))).await;
    results.expect(83, "the key to agree with", &[200], &answer);
    let made = answer.json();
    let path = path_of(made["keyId"].as_str().unwrap());
    let multibase = |u: [u8; 32]| {
        format!(
            "z{}",
            bs58::encode([&[0xec, 0x01], &u[..]].concat()).into_string()
        )
    };
    let derive = |u: [u8; 32]| {
        json!({
            "type": "DeriveSecretOperation",
            "invocationTarget": url(&path),
            "publicKey": {"type": "X25519KeyAgreementKey2020", "id": "urn:x", "publicKeyMultibase": multibase(u)},
        })
    };
    let mut one = [0; 32];
    one[0] = 1;
    let mut twist = [0; 32];
    twist[0] = 2;
    let mut low = [0xff; 32];
    (low[0], low[31]) = (0xec, 0x7f);
    for (case, u) in [
        ("u = 0", [0; 32]),
        ("u = 1", one),
        ("u = p - 1", low),
        ("on the twist", twist),
    ] {
        let request = use_key(&path, "deriveSecret", &derive(u));
        results.expect(83, case, &[403], &server.send(&request).await);
    }
    let request = use_key(&path, "sign", &sign(&path, "aGVsbG8"));
    results.expect(
        84,
        "sign with a key that agrees",
        &[403, 400, 409],
        &server.send(&request).await,
    );
    let mut body = derive(one);
    body["invocationTarget"] = json!(url(key_path()));
    let request = use_key(key_path(), "deriveSecret", &body);
    results.expect(
        84,
        "derive with a key that signs",
        &[403, 400, 409],
        &server.send(&request).await,
    );
}

/// 82: what one key has wrapped, changed, cut, or shown to another key: one answer for all of it.
async fn wraps(server: &Server, results: &mut Results) {
    let keys = format!("{}/keys", path_of(keystore()));
    let mut made = Vec::new();
    for _ in 0..2 {
        let mut body = generate("AesKeyWrappingKey2019");
        body["invocationTarget"]["publicAlias"] = json!(format!("urn:kek:{}", made.len()));
        let answer = server.send(&by_alice("POST", &keys, "generateKey", &body)).await;
        results.expect(82, "a key that wraps", &[200], &answer);
        made.push(path_of(answer.json()["keyId"].as_str().unwrap()));
    }
    let payload = [7; 32];
    let wrap = json!({
        "type": "WrapKeyOperation",
        "invocationTarget": url(&made[0]),
        "unwrappedKey": URL_SAFE_NO_PAD.encode(payload),
    });
    let answer = server.send(&use_key(&made[0], "wrapKey", &wrap)).await;
    results.expect(82, "a wrap", &[200], &answer);
    let wrapped = answer.json()["wrappedKey"].as_str().unwrap().to_owned();
    let wrapped = URL_SAFE_NO_PAD.decode(wrapped).unwrap();
    let flipped = |at: usize| {
        let mut flipped = wrapped.clone();
        flipped[at] ^= 1;
        flipped
    };
    for (case, key, shown) in [
        ("unwrapped by its key", 0, wrapped.clone()),
        ("another key's", 1, wrapped.clone()),
        ("its first bit flipped", 0, flipped(0)),
        ("a bit in the middle flipped", 0, flipped(20)),
        ("its last bit flipped", 0, flipped(39)),
        ("a block cut off", 0, wrapped[..32].to_vec()),
        ("a byte cut off", 0, wrapped[..39].to_vec()),
        ("a block more", 0, [&wrapped[..], &[0; 8]].concat()),
        ("nothing", 0, Vec::new()),
    ] {
        let unwrap = json!({
            "type": "UnwrapKeyOperation",
            "invocationTarget": url(&made[key]),
            "wrappedKey": URL_SAFE_NO_PAD.encode(&shown),
        });
        let outcome = server.send(&use_key(&made[key], "unwrapKey", &unwrap)).await;
        let wanted = match shown == wrapped && key == 0 {
            true => json!({ "unwrappedKey": URL_SAFE_NO_PAD.encode(payload) }),
            false => json!({ "unwrappedKey": null }),
        };
        let expected: &[u16] = if outcome.json() == wanted { &[200] } else { &[] };
        results.expect(82, case, expected, &outcome);
    }
}

/// 79, 80, 85 and 86: the keystore's configuration.
async fn configuration(server: &Server, results: &mut Results) {
    let path = path_of(keystore());
    let get = |invocation: &str, who: &str| {
        Forge::new(invocation)
            .with(|forge| {
                (forge.method, forge.target) = ("GET".into(), path.clone());
                (forge.key, forge.key_id) = (key(who), method(who));
                forge
                    .headers
                    .retain(|(name, _)| name != "digest" && name != "content-type");
                forge.covered.truncate(6);
                forge.body.clear();
            })
            .signed()
    };
    let root = conclave::authorization::root_id(keystore());
    let read = get(&format!("zcap id=\"{root}\",action=\"read\""), "alice");
    // A delegation may live for 90 days where keystores are read or changed, from its making to its end.
    for (case, days, expected) in [("less than 90 days", 89, 200), ("a second more", 90, 403)] {
        let lent = parent(|d| {
            made(Delegation {
                id: "urn:uuid:to-read",
                created: now() - DAY - 1,
                expires: now() + (days - 1) * DAY,
                ..d
            })
        });
        let packed = URL_SAFE_NO_PAD.encode(gzip(lent.to_string().as_bytes()));
        let invocation = format!("zcap capability=\"{packed}\",action=\"read\"");
        let answer = server.send(&get(&invocation, "bob")).await;
        results.expect(57, case, &[expected], &answer);
    }
    let answer = server.send(&read).await;
    results.expect(29, "a GET", &[200], &answer);
    results.expect(29, "the same GET", &[200], &server.send(&read).await);
    let (start, end) = (answer.body.find('{').unwrap(), answer.body.rfind('}').unwrap());
    let config: Value = serde_json::from_str(&answer.body[start..=end]).unwrap();
    let next = config["sequence"].as_u64().unwrap() + 1;
    let update = |change: &dyn Fn(&mut Value)| {
        let mut config = config.clone();
        config["sequence"] = json!(next);
        change(&mut config);
        by_alice("POST", &path, "write", &config)
    };
    for (row, case, request, expected) in [
        (
            79,
            "the current sequence",
            update(&|v| v["sequence"] = json!(next - 1)),
            &[409][..],
        ),
        (
            79,
            "one too far",
            update(&|v| v["sequence"] = json!(next + 1)),
            &[409],
        ),
        (
            79,
            "2^53",
            update(&|v| v["sequence"] = json!(9_007_199_254_740_992u64)),
            &[400, 409],
        ),
        (79, "negative", update(&|v| v["sequence"] = json!(-1)), &[400]),
        (79, "a fraction", update(&|v| v["sequence"] = json!(1.5)), &[400]),
        (
            79,
            "no controller",
            update(&|v| drop(v.as_object_mut().unwrap().remove("controller"))),
            &[400],
        ),
        (
            79,
            "empty controller",
            update(&|v| v["controller"] = json!("")),
            &[400],
        ),
        (79, "empty list", update(&|v| v["controller"] = json!([])), &[400]),
        (
            79,
            "another id",
            update(&|v| v["id"] = json!(format!("{}x", keystore()))),
            &[400],
        ),
        (
            85,
            "kmsModule with a path",
            update(&|v| v["kmsModule"] = json!("../ssm")),
            &[400],
        ),
        (
            86,
            "bad block",
            update(&|v| v["ipAllowList"] = json!(["10.0.0.0/33"])),
            &[400],
        ),
        (
            86,
            "no block",
            update(&|v| v["ipAllowList"] = json!(["10.0.0.1"])),
            &[400],
        ),
        (
            86,
            "everything",
            update(&|v| v["ipAllowList"] = json!(["0.0.0.0/0"])),
            &[400],
        ),
        (
            86,
            "IPv4 in IPv6",
            update(&|v| v["ipAllowList"] = json!(["::ffff:10.0.0.0/104"])),
            &[400],
        ),
    ] {
        results.expect(row, case, expected, &server.send(&request).await);
    }
    let same = |name: &str| update(&|v| v["controller"] = json!([did("alice"), did(name)]));
    let (first, second) = (same("bob"), same("carol"));
    let (first, second) = tokio::join!(server.send(&first), server.send(&second));
    let mut both = [first.status, second.status];
    both.sort_unstable();
    results.expect(
        80,
        "one of two wins",
        &[200],
        if both == [200, 409] {
            winner(&first, &second)
        } else {
            &second
        },
    );
    assert_eq!(both, [200, 409], "80: {} {}", first.body, second.body);
    // 86: an address list that leaves everybody here out, and a header that says otherwise.
    let sequence = next + 1;
    let locked = {
        let mut config = config.clone();
        (config["sequence"], config["ipAllowList"]) = (json!(sequence), json!(["192.0.2.0/24"]));
        by_alice("POST", &path, "write", &config)
    };
    results.expect(86, "a list", &[200], &server.send(&locked).await);
    let mut spoofed = Forge::root().signed();
    spoofed
        .headers
        .push(("x-forwarded-for".into(), b"192.0.2.7".to_vec()));
    results.expect(86, "forwarded for", &[403], &server.send(&spoofed).await);
}

fn winner<'a>(
    first: &'a super::server::Outcome,
    second: &'a super::server::Outcome,
) -> &'a super::server::Outcome {
    if first.status == 200 { first } else { second }
}

/// A use by a stranger of Alice's key, or of one of her keystore's that does not exist.
pub(crate) fn by_mallory(exists: bool, message: &str) -> RawRequest {
    let (stem, _) = key_path().rsplit_once('/').unwrap();
    let guess = format!("{stem}/z19ssssssssssssssssssssss");
    let path = if exists { key_path() } else { &guess };
    let body = sign(path, &URL_SAFE_NO_PAD.encode(message))
        .to_string()
        .into_bytes();
    let sha = base64::engine::general_purpose::STANDARD.encode(<sha2::Sha256 as sha2::Digest>::digest(&body));
    Forge::root()
        .set("digest", format!("SHA-256={sha}"))
        .with(|forge| {
            (forge.target, forge.body) = (path.to_owned(), body);
            (forge.key, forge.key_id) = (key("mallory"), method("mallory"));
        })
        .signed()
}

/// 78: whoever may not look is told the same of a key that exists and of one that does not.
async fn strangers(server: &Server, results: &mut Results) {
    let there = server.send(&by_mallory(true, "78")).await;
    let absent = server.send(&by_mallory(false, "78")).await;
    results.expect(78, "a stranger, a key that exists", &[403], &there);
    results.expect(78, "a stranger, a key that does not", &[403], &absent);
    assert_eq!(
        (there.reason, there.body),
        (absent.reason, absent.body),
        "78: told apart"
    );
}

/// 64 to 66: revocations, over the wire.
async fn revocations(server: &Server, results: &mut Results) {
    let soon = |delegation: Delegation<'_>| {
        made(Delegation {
            created: now() - 10,
            expires: now() + 3_600,
            ..delegation
        })
    };
    let lent = parent(soon);
    let capability = child(&lent, soon);
    let revocation = |id: &str| format!("{}/zcaps/revocations/{}", path_of(keystore()), percent(id));
    let target = revocation(capability["id"].as_str().unwrap());
    // By somebody who is not in the chain.
    let stranger = {
        let mut forge = Forge::root();
        let body = capability.to_string().into_bytes();
        let sha = <sha2::Sha256 as sha2::Digest>::digest(&body);
        forge = forge.set(
            "digest",
            format!(
                "SHA-256={}",
                base64::engine::general_purpose::STANDARD.encode(sha)
            ),
        );
        (forge.target, forge.body) = (target.clone(), body);
        (forge.key, forge.key_id) = (key("mallory"), method("mallory"));
        forge.signed()
    };
    results.expect(65, "by a stranger", &[403], &server.send(&stranger).await);
    let root = json!({
        "@context": "https://w3id.org/zcap/v1",
        "id": conclave::authorization::root_id(keystore()),
        "controller": did("alice"),
        "invocationTarget": keystore(),
    });
    let of_root = format!(
        "{}/zcaps/revocations/{}",
        path_of(keystore()),
        percent(&conclave::authorization::root_id(keystore()))
    );
    let request = by_alice("POST", &of_root, "write", &root);
    results.expect(
        65,
        "of a root capability",
        &[400, 403],
        &server.send(&request).await,
    );
    let elsewhere = "https://kms.example/kms/keystores/z1A1111111111111111111111";
    let foreign = made(Delegation {
        target: elsewhere,
        controllers: &[&did("bob")],
        ..delegation(&key("alice"), Capability::Root(elsewhere), "urn:uuid:foreign")
    });
    let of_foreign = format!(
        "{}/zcaps/revocations/{}",
        path_of(keystore()),
        percent("urn:uuid:foreign")
    );
    let request = by_alice("POST", &of_foreign, "write", &foreign);
    results.expect(
        65,
        "for another keystore",
        &[400, 403],
        &server.send(&request).await,
    );
    // Carol's is used, revoked by the controller, and refused at every node; again is a refusal too.
    let message = |text: &str| sign(key_path(), &URL_SAFE_NO_PAD.encode(text));
    let by_carol = |capability: &Value, text: &str| delegated(capability, "carol", &message(text));
    let outcome = server.send(&by_carol(&capability, "before")).await;
    results.expect(64, "before", &[200], &outcome);
    let request = by_alice("POST", &target, "write", &capability);
    results.expect(64, "revoked", &[204], &server.send(&request).await);
    for turn in 0..server.nodes.len() {
        let outcome = server
            .send(&by_carol(&capability, &format!("after {turn}")))
            .await;
        results.expect(64, "revoked tail", &[403], &outcome);
    }
    let again = by_alice("POST", &format!("{target}?again"), "write", &capability);
    results.expect(65, "twice", &[403, 404, 409], &server.send(&again).await);
    let reissued = child(&lent, |delegation| {
        made(Delegation {
            created: now() - 5,
            expires: now() + 1_800,
            ..delegation
        })
    });
    let outcome = server.send(&by_carol(&reissued, "again under its id")).await;
    results.expect(66, "same id, same delegator, other content", &[403], &outcome);
    let alices = made(Delegation {
        controllers: &[&did("carol")],
        created: now() - 5,
        expires: now() + 1_800,
        ..delegation(
            &key("alice"),
            Capability::Root(keystore()),
            capability["id"].as_str().unwrap(),
        )
    });
    let outcome = server.send(&by_carol(&alices, "same id, by another")).await;
    results.expect(66, "same id by another delegator", &[200], &outcome);
    let request = by_alice("POST", &revocation(lent["id"].as_str().unwrap()), "write", &lent);
    results.expect(64, "the parent revoked", &[204], &server.send(&request).await);
    let other = child(&lent, |delegation| {
        soon(Delegation {
            id: "urn:uuid:other",
            ..delegation
        })
    });
    let outcome = server.send(&by_carol(&other, "by a revoked parent")).await;
    results.expect(64, "revoked parent", &[403], &outcome);
}

/// A use by an invoker of a delegated capability.
fn delegated(capability: &Value, who: &str, body: &Value) -> RawRequest {
    let packed = URL_SAFE_NO_PAD.encode(gzip(capability.to_string().as_bytes()));
    let body = body.to_string().into_bytes();
    let sha = base64::engine::general_purpose::STANDARD.encode(<sha2::Sha256 as sha2::Digest>::digest(&body));
    Forge::new(&format!("zcap capability=\"{packed}\",action=\"sign\""))
        .set("digest", format!("SHA-256={sha}"))
        .with(|forge| {
            (forge.key, forge.key_id, forge.body) = (key(who), method(who), body);
        })
        .signed()
}

fn percent(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                char::from(byte).to_string()
            }
            byte => format!("%{byte:02X}"),
        })
        .collect()
}
