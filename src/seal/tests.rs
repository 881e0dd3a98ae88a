//! Tests of the ways to the node key.

use std::time::Duration;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use rand::{SeedableRng as _, rngs::StdRng};
use zeroize::Zeroizing;

use super::{
    passphrase::{Cost, PassphraseError, SealedNodeKey, without_line_end},
    unseal::{AttemptLimit, UnsealReply, door},
    *,
};
use crate::config::fields::encode_hex;

const KEY: [u8; 32] = *b"0123456789abcdefghijklmnopqrstuv";
const CHEAP: Cost = Cost {
    memory_kib: 8,
    iterations: 1,
    parallelism: 1,
};

fn sealed(passphrase: &[u8]) -> SealedNodeKey {
    let mut rng = StdRng::seed_from_u64(1);
    SealedNodeKey::seal(&NodeKey::new(&KEY), passphrase, CHEAP, &[9; 32], 1, &mut rng).unwrap()
}

fn written(sealed: &SealedNodeKey) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("passphrase.json");
    secret_file::create(&path, &sealed.to_json()).unwrap();
    (folder, path)
}

#[test]
fn a_key_is_read_in_three_forms_and_in_no_other() {
    let hex = encode_hex(&KEY);
    let good: [Vec<u8>; 5] = [
        KEY.to_vec(),
        hex.clone().into_bytes(),
        format!("{}\n", hex.to_uppercase()).into_bytes(),
        BASE64_STANDARD.encode(KEY).into_bytes(),
        format!(" {}\r\n", BASE64_STANDARD.encode(KEY)).into_bytes(),
    ];
    for text in good {
        assert_eq!(source::parse(&text).unwrap().expose(), &KEY, "{text:?}");
    }
    let bad: [Vec<u8>; 5] = [
        vec![],
        vec![1; 31],
        vec![1; 33],
        hex.as_bytes()[1..].to_vec(),
        vec![b'g'; 64],
    ];
    for text in bad {
        assert!(source::parse(&text).is_none(), "{text:?}");
    }
}

#[tokio::test]
async fn a_command_prints_the_key_or_is_named() {
    let run = |script: &str, seconds| {
        let command = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        async move { source::from_command(&command, Duration::from_secs(seconds)).await }
    };
    assert_eq!(
        run(&format!("echo {}", encode_hex(&KEY)), 30)
            .await
            .ok()
            .unwrap()
            .expose(),
        &KEY
    );
    assert!(matches!(
        run("exit 3", 30).await,
        Err(SealError::CommandFailed { .. })
    ));
    assert!(matches!(run("echo no", 30).await, Err(SealError::NotAKey { .. })));
    // Endless output is cut at its bound; the writer ends by a broken pipe.
    assert!(run("yes", 30).await.is_err());
    let missing = source::from_command(&["/no/such/program".to_owned()], Duration::from_secs(30)).await;
    assert!(matches!(missing, Err(SealError::Command { .. })));
}

#[tokio::test]
async fn a_command_that_hangs_is_stopped() {
    let command = ["/bin/sh", "-c", "exec sleep 1000"].map(str::to_owned).to_vec();
    let outcome = source::from_command(&command, Duration::from_millis(50)).await;
    assert!(
        matches!(outcome, Err(SealError::CommandFailed { outcome, .. }) if outcome.contains("took longer"))
    );
}

#[test]
fn a_credential_is_a_file_in_the_directory_that_systemd_names() {
    let folder = tempfile::tempdir().unwrap();
    secret_file::create(&folder.path().join("name"), &KEY).unwrap();
    let directory = Some(folder.path().as_os_str().to_owned());
    assert_eq!(
        source::from_credential("name", directory.clone())
            .ok()
            .unwrap()
            .expose(),
        &KEY
    );
    assert!(matches!(
        source::from_credential("other", directory),
        Err(SealError::File(_))
    ));
    assert!(matches!(
        source::from_credential("name", None),
        Err(SealError::NoCredentials { .. })
    ));
}

#[test]
fn a_wrong_passphrase_is_told_from_damage() {
    let sealed = sealed(b"correct horse battery");
    assert_eq!(
        sealed
            .open(b"correct horse battery", &[9; 32], 1)
            .ok()
            .unwrap()
            .expose(),
        &KEY
    );
    assert!(matches!(
        sealed.open(b"incorrect horse", &[9; 32], 1),
        Err(PassphraseError::Wrong)
    ));
    assert!(matches!(
        sealed.open(b"correct horse battery", &[9; 32], 2),
        Err(PassphraseError::Wrong)
    ));
    let text = String::from_utf8(sealed.to_json()).unwrap();
    for (from, to) in [
        ("\"memory_kib\": 8", "\"memory_kib\": 16"),
        ("\"iterations\": 1", "\"iterations\": 2"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, text.replace(from, to)).unwrap();
        assert_ne!(text, text.replace(from, to));
        assert!(
            matches!(SealedNodeKey::read(&path), Err(PassphraseError::Damaged)),
            "{from}"
        );
    }
}

#[test]
fn a_passphrase_has_a_least_length_and_no_line_end() {
    let mut rng = StdRng::seed_from_u64(1);
    let mut seal = |passphrase: &[u8]| {
        SealedNodeKey::seal(&NodeKey::new(&KEY), passphrase, CHEAP, &[9; 32], 1, &mut rng).map(drop)
    };
    assert!(matches!(seal(b"too short"), Err(PassphraseError::Length)));
    assert!(matches!(seal(&[b'x'; 1025]), Err(PassphraseError::Length)));
    seal(b"long enough!").unwrap();
    for text in ["a b", "a b\n", "a b\r\n"] {
        assert_eq!(without_line_end(text.as_bytes()), b"a b");
    }
    assert_eq!(without_line_end(b"a\n\n"), b"a\n");
}

/// RFC 9106 has its vector with secret and associated data; this one is from the reference implementation's test
/// suite (argon2id, version 19, t=2, m=2^16, p=1, "password", "somesalt").
#[test]
fn argon2id_is_the_reference_implementations() {
    let mut output = [0; 32];
    let params = argon2::Params::new(65536, 2, 1, Some(32)).unwrap();
    argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params)
        .hash_password_into(b"password", b"somesalt", &mut output)
        .unwrap();
    assert_eq!(
        encode_hex(&output),
        "09316115d5cf24ed5a15a31a3ba326e5cf32edc24702987c02b6566f61913cf7"
    );
}

#[test]
fn the_fourth_wrong_passphrase_makes_the_next_ones_wait() {
    let start = Instant::now();
    let mut limit = AttemptLimit::default();
    for _ in 0..2 {
        limit.failed(start);
        assert_eq!(limit.admit(start), Ok(()));
    }
    let waits: Vec<_> = (0..9)
        .map(|_| {
            limit.failed(start);
            limit.admit(start).unwrap_err()
        })
        .collect();
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    assert_eq!(limit.admit(start + Duration::from_millis(59_001)), Err(1));
    assert_eq!(limit.admit(start + Duration::from_secs(60)), Ok(()));
}

#[tokio::test]
async fn a_sealed_node_waits_for_the_right_passphrase() {
    let (_folder, path) = written(&sealed(b"correct horse battery"));
    let (door, attempts) = door();
    let waiting =
        tokio::spawn(async move { obtain(&SealMethod::Passphrase { path }, &[9; 32], 1, attempts).await });
    let attempt = |text: &str| door.attempt(Zeroizing::new(text.as_bytes().to_vec()));
    assert_eq!(attempt("incorrect horse").await, UnsealReply::Wrong);
    assert_eq!(attempt("").await, UnsealReply::Wrong);
    assert!(!waiting.is_finished());
    assert_eq!(attempt("correct horse battery").await, UnsealReply::Opened);
    assert_eq!(waiting.await.unwrap().ok().unwrap().expose(), &KEY);
    assert_eq!(attempt("correct horse battery").await, UnsealReply::NotSealed);
}

#[tokio::test]
async fn guessing_is_slowed() {
    let (_folder, path) = written(&sealed(b"correct horse battery"));
    let (door, attempts) = door();
    let waiting =
        tokio::spawn(async move { obtain(&SealMethod::Passphrase { path }, &[9; 32], 1, attempts).await });
    for _ in 0..3 {
        assert_eq!(
            door.attempt(Zeroizing::new(b"guess".to_vec())).await,
            UnsealReply::Wrong
        );
    }
    // The right one too: nothing can be learned while the door is shut.
    let reply = door
        .attempt(Zeroizing::new(b"correct horse battery".to_vec()))
        .await;
    assert_eq!(reply, UnsealReply::TooSoon { seconds: 1 });
    waiting.abort();
}

#[tokio::test]
async fn without_a_door_the_wait_ends() {
    let (_folder, path) = written(&sealed(b"correct horse battery"));
    let (door, attempts) = door();
    drop(door);
    let outcome = obtain(&SealMethod::Passphrase { path }, &[9; 32], 1, attempts).await;
    assert!(matches!(outcome, Err(SealError::DoorClosed)));
}
