//! The store as its callers see it, and as somebody who has its disk does.

// clippy.toml allows it in test functions; this file's other functions are tests' too.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use conclave_shares::{Error, KeptEnvelope, NodeKey, OpenEnvelope, Session, ShareId, ShareStore};
use rand::rngs::{OsRng, StdRng};
use rand::{Rng, SeedableRng};
use rocksdb::{DB, IteratorMode, Options};
use tempfile::TempDir;

const CLUSTER: [u8; 32] = [7; 32];

struct Place {
    _folder: TempDir,
    path: PathBuf,
    file: PathBuf,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (path, file) = (folder.path().join("shares"), folder.path().join("epoch-keys"));
        Self {
            _folder: folder,
            path,
            file,
        }
    }

    fn open_as(&self, key: u8, cluster: [u8; 32], node: u64) -> Result<ShareStore, Error> {
        let key = NodeKey::new(Box::new([key; 32]));
        ShareStore::open(&self.path, &self.file, key, cluster, node, OsRng)
    }

    fn open(&self) -> ShareStore {
        self.open_as(1, CLUSTER, 1).unwrap()
    }

    /// The database without the store: what somebody with the disk sees.
    fn raw(&self) -> DB {
        DB::open(&Options::default(), &self.path).unwrap()
    }

    fn records(&self, first: u8) -> Vec<(Vec<u8>, Vec<u8>)> {
        let all = self
            .raw()
            .iterator(IteratorMode::Start)
            .map(|entry| entry.unwrap())
            .collect::<Vec<_>>();
        let of = all.into_iter().filter(|(key, _)| key[0] == first);
        of.map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
    }
}

fn id(key: u8, session: u8) -> ShareId {
    ShareId {
        keystore: [1; 16],
        key: [key; 16],
        session: [session; 32],
        key_type: "Ed25519".into(),
        epoch: 1,
    }
}

fn envelope(member: u16) -> KeptEnvelope {
    KeptEnvelope {
        member,
        bytes: format!("for {member}").into_bytes(),
    }
}

#[track_caller]
fn holds(store: &ShareStore, id: &ShareId, secret: &[u8]) {
    assert!(store.get(id).unwrap().unwrap().expose() == secret);
}

fn error<T>(result: Result<T, Error>) -> Error {
    match result {
        Ok(_) => panic!("no error"),
        Err(error) => error,
    }
}

#[test]
fn what_is_put_is_there_after_reopening_and_is_not_overwritten() {
    let place = Place::new();
    {
        let store = place.open();
        assert!(store.get(&id(1, 1)).unwrap().is_none());
        store.put(&id(1, 1), b"first", &[envelope(3)], 10).unwrap();
        store.put(&id(1, 2), b"second", &[], 20).unwrap();
        store.put(&id(2, 1), &[9; 1000], &[], 30).unwrap();
        assert!(matches!(
            error(store.put(&id(1, 1), b"other", &[envelope(4)], 10)),
            Error::Exists
        ));
        let other_epoch = ShareId { epoch: 2, ..id(1, 1) };
        assert!(matches!(
            error(store.put(&other_epoch, b"other", &[], 10)),
            Error::Exists
        ));
        assert_eq!(store.open_envelopes(), 1);
    }
    let store = place.open();
    holds(&store, &id(1, 1), b"first");
    holds(&store, &id(1, 2), b"second");
    holds(&store, &id(2, 1), &[9; 1000]);
    let sessions = [
        Session {
            id: id(1, 1),
            started_ms: 10,
        },
        Session {
            id: id(1, 2),
            started_ms: 20,
        },
    ];
    assert_eq!(store.sessions(&[1; 16], &[1; 16]).unwrap(), sessions);
    assert!(store.sessions(&[2; 16], &[1; 16]).unwrap().is_empty());
    assert_eq!(store.open_envelopes(), 1);
}

#[test]
fn another_type_or_epoch_is_not_handed_out() {
    let place = Place::new();
    let store = place.open();
    store.put(&id(1, 1), b"share", &[], 0).unwrap();
    for asked in [
        ShareId { epoch: 2, ..id(1, 1) },
        ShareId {
            key_type: "X25519".into(),
            ..id(1, 1)
        },
    ] {
        let refused = error(store.get(&asked));
        assert!(
            matches!(&refused, Error::Other { key_type, epoch: 1 } if key_type == "Ed25519"),
            "{refused}"
        );
        assert!(matches!(error(store.remove_session(&asked)), Error::Other { .. }));
    }
    holds(&store, &id(1, 1), b"share");
}

#[test]
fn bounds_are_kept() {
    let place = Place::new();
    let store = place.open();
    let long = vec![1; 64 * 1024 + 1];
    let typed = |key_type: String| ShareId { key_type, ..id(1, 1) };
    let many: Vec<_> = (0..17).map(envelope).collect();
    let huge = [KeptEnvelope {
        member: 1,
        bytes: vec![0; 256 * 1024 + 1],
    }];
    let wrong = [
        store.put(&id(1, 1), &long, &[], 0),
        store.put(&id(1, 1), b"", &[], 0),
        store.put(&typed(String::new()), b"s", &[], 0),
        store.put(&typed("x".repeat(256)), b"s", &[], 0),
        store.put(&id(1, 1), b"s", &many, 0),
        store.put(&id(1, 1), b"s", &huge, 0),
        store.put(&id(1, 1), b"s", &[envelope(1), envelope(1)], 0),
    ];
    for result in wrong {
        assert!(matches!(error(result), Error::Bound(_)));
    }
    assert!(store.get(&id(1, 1)).unwrap().is_none());
    let inside = place.path.join("epoch-keys");
    let key = NodeKey::new(Box::new([1; 32]));
    assert!(matches!(
        error(ShareStore::open(&place.path, &inside, key, CLUSTER, 1, OsRng)),
        Error::Bound(_)
    ));
}

#[test]
fn envelopes_wait_for_their_member() {
    let place = Place::new();
    let open = |key, member: u16| OpenEnvelope {
        id: id(key, 1),
        bytes: envelope(member).bytes,
    };
    {
        let store = place.open();
        for key in 1..=5 {
            store
                .put(&id(key, 1), b"share", &[envelope(3), envelope(259)], 0)
                .unwrap();
        }
        assert_eq!(store.open_envelopes(), 10);
        let first = store.envelopes_for(3, None, 2).unwrap();
        assert_eq!(first, [open(1, 3), open(2, 3)]);
        assert_eq!(
            store.envelopes_for(3, Some(&first[1].id), 2).unwrap(),
            [open(3, 3), open(4, 3)]
        );
        assert_eq!(store.envelopes_for(3, Some(&id(4, 1)), 2).unwrap(), [open(5, 3)]);
        assert!(store.envelopes_for(4, None, 100).unwrap().is_empty());
        assert!(store.confirm(3, &id(2, 1)).unwrap());
        assert!(!store.confirm(3, &id(2, 1)).unwrap());
        assert!(!store.confirm(4, &id(1, 1)).unwrap());
        assert_eq!(store.open_envelopes(), 9);
    }
    let store = place.open();
    assert_eq!(store.open_envelopes(), 9);
    assert_eq!(
        store.envelopes_for(3, Some(&id(1, 1)), 9).unwrap(),
        [open(3, 3), open(4, 3), open(5, 3)]
    );
    assert_eq!(store.envelopes_for(259, None, 9).unwrap().len(), 5);
    // With the share go its envelopes, those that are left.
    assert!(store.remove_session(&id(2, 1)).unwrap());
    assert!(store.remove_session(&id(3, 1)).unwrap());
    assert_eq!(store.open_envelopes(), 6);
    holds(&store, &id(1, 1), b"share");
}

#[test]
fn orphans_are_found_by_start_and_go() {
    let place = Place::new();
    {
        let store = place.open();
        store.put(&id(1, 1), b"a", &[], 300).unwrap();
        store.put(&id(2, 1), b"b", &[], 100).unwrap();
        store.put(&id(3, 1), b"c", &[], 200).unwrap();
        let started = |sessions: Vec<Session>| sessions.iter().map(|s| s.started_ms).collect::<Vec<_>>();
        assert_eq!(started(store.unsettled(300, None, 9).unwrap()), [100, 200]);
        assert_eq!(
            started(store.unsettled(u64::MAX, None, 9).unwrap()),
            [100, 200, 300]
        );
        let first = store.unsettled(u64::MAX, None, 1).unwrap();
        let rest = store.unsettled(u64::MAX, first.last(), 9).unwrap();
        assert_eq!((started(first), started(rest)), (vec![100], vec![200, 300]));
        store
            .settle(&Session {
                id: id(2, 1),
                started_ms: 100,
            })
            .unwrap();
        assert!(store.remove_session(&id(3, 1)).unwrap());
        assert!(!store.remove_session(&id(3, 1)).unwrap());
        assert_eq!(started(store.unsettled(u64::MAX, None, 9).unwrap()), [300]);
    }
    let store = place.open();
    assert!(store.get(&id(3, 1)).unwrap().is_none());
    holds(&store, &id(2, 1), b"b");
    assert_eq!(store.unsettled(u64::MAX, None, 9).unwrap().len(), 1);
}

#[test]
fn a_second_opener_a_stranger_and_a_wrong_key_are_refused() {
    let place = Place::new();
    {
        let store = place.open();
        store.put(&id(1, 1), b"share", &[], 0).unwrap();
        assert!(matches!(error(place.open_as(1, CLUSTER, 1)), Error::Locked(_)));
    }
    assert!(matches!(error(place.open_as(2, CLUSTER, 1)), Error::WrongNodeKey));
    assert!(matches!(
        error(place.open_as(1, [8; 32], 1)),
        Error::Foreign { .. }
    ));
    assert!(matches!(
        error(place.open_as(1, CLUSTER, 2)),
        Error::Foreign { .. }
    ));
    holds(&place.open(), &id(1, 1), b"share");
}

#[test]
fn a_lost_epoch_file_is_not_made_anew() {
    let place = Place::new();
    place.open().put(&id(1, 1), b"share", &[], 0).unwrap();
    let bytes = fs::read(&place.file).unwrap();
    fs::remove_file(&place.file).unwrap();
    assert!(matches!(
        error(place.open_as(1, CLUSTER, 1)),
        Error::EpochFileMissing(_)
    ));
    assert!(!place.file.exists());
    let mut cut = bytes.clone();
    cut.truncate(bytes.len() / 2);
    fs::write(&place.file, cut).unwrap();
    assert!(matches!(
        error(place.open_as(1, CLUSTER, 1)),
        Error::Quarantine(_)
    ));
    fs::write(&place.file, bytes).unwrap();
    holds(&place.open(), &id(1, 1), b"share");
}

#[test]
fn a_first_start_that_crashed_between_file_and_database_goes_on() {
    let place = Place::new();
    drop(place.open());
    fs::remove_dir_all(&place.path).unwrap();
    let store = place.open();
    store.put(&id(1, 1), b"share", &[], 0).unwrap();
    holds(&store, &id(1, 1), b"share");
}

#[test]
fn a_database_without_its_first_record_is_quarantined() {
    let place = Place::new();
    place.open().put(&id(1, 1), b"share", &[], 0).unwrap();
    place.raw().delete(b"I").unwrap();
    assert!(matches!(
        error(place.open_as(1, CLUSTER, 1)),
        Error::Quarantine(_)
    ));
}

#[test]
fn a_damaged_record_is_quarantined_and_not_removed() {
    let place = Place::new();
    place
        .open()
        .put(&id(1, 1), b"a share of thirty-two bytes, yes", &[envelope(2)], 5)
        .unwrap();
    let (key, value) = place.records(b'S').remove(0);
    // Every byte is flipped in record.rs; here one at each end and some between.
    for at in (0..value.len()).step_by(29).chain([value.len() - 1]) {
        let mut flipped = value.clone();
        flipped[at] ^= 0x01;
        place.raw().put(&key, flipped).unwrap();
        let store = place.open();
        assert!(
            matches!(error(store.get(&id(1, 1))), Error::Quarantine(_)),
            "byte {at}"
        );
        assert!(store.sessions(&[1; 16], &[1; 16]).is_err(), "byte {at}");
        assert!(store.remove_session(&id(1, 1)).is_err(), "byte {at}");
    }
    place.raw().put(&key, value).unwrap();
    holds(&place.open(), &id(1, 1), b"a share of thirty-two bytes, yes");
}

#[test]
fn a_record_opens_only_at_its_place() {
    let place = Place::new();
    {
        let store = place.open();
        store.put(&id(1, 1), b"one", &[], 0).unwrap();
        store.put(&id(2, 1), b"two", &[], 0).unwrap();
        store.put(&id(1, 2), b"three", &[], 0).unwrap();
    }
    let records = place.records(b'S');
    for (from, value) in &records {
        for (to, own) in &records {
            if from == to {
                continue;
            }
            place.raw().put(to, value).unwrap();
            let store = place.open();
            for asked in [id(1, 1), id(2, 1), id(1, 2)] {
                match store.get(&asked) {
                    Ok(Some(_)) => assert!(!to.ends_with(&asked.session) || to[17..33] != asked.key),
                    Err(Error::Quarantine(_)) => {
                        assert!(to.ends_with(&asked.session) && to[17..33] == asked.key)
                    }
                    _ => panic!("neither data nor quarantine"),
                }
            }
            drop(store);
            place.raw().put(to, own).unwrap();
        }
    }
    // Another node that has the same node key and the same name of the share.
    let other = Place::new();
    other
        .open_as(1, CLUSTER, 2)
        .unwrap()
        .put(&id(1, 1), b"one", &[], 0)
        .unwrap();
    other.raw().put(&records[0].0, &records[0].1).unwrap();
    let store = other.open_as(1, CLUSTER, 2).unwrap();
    assert!(matches!(error(store.get(&id(1, 1))), Error::Quarantine(_)));
}

#[test]
fn rotation_keeps_what_is_there_and_makes_what_was_removed_unreadable() {
    let place = Place::new();
    {
        let store = place.open();
        for key in 0..=255 {
            for session in 1..=2 {
                store.put(&id(key, session), &[key, session], &[], 0).unwrap();
            }
        }
        store
            .put(
                &ShareId {
                    keystore: [2; 16],
                    ..id(1, 1)
                },
                b"last",
                &[],
                0,
            )
            .unwrap();
    }
    let kept = place.records(b'S');
    let old_file = fs::read(&place.file).unwrap();
    {
        let store = place.open();
        store.remove_session(&id(7, 1)).unwrap();
        store.rotate().unwrap();
        assert_ne!(fs::read(&place.file).unwrap(), old_file);
        assert_eq!(fs::read(&place.file).unwrap().len(), old_file.len());
        for key in 0..=255 {
            holds(&store, &id(key, 2), &[key, 2]);
        }
        store.put(&id(8, 3), b"new", &[], 0).unwrap();
        store.rotate().unwrap();
    }
    let store = place.open();
    holds(&store, &id(0, 1), &[0, 1]);
    holds(&store, &id(255, 2), &[255, 2]);
    holds(&store, &id(8, 3), b"new");
    assert!(store.get(&id(7, 1)).unwrap().is_none());
    drop(store);
    // Somebody brings the removed record back from an old copy of the disk: its epoch key is gone.
    let (key, value) = kept
        .iter()
        .find(|(key, _)| key.ends_with(&id(7, 1).session) && key[17] == 7)
        .unwrap();
    place.raw().put(key, value).unwrap();
    assert!(matches!(error(place.open().get(&id(7, 1))), Error::Quarantine(_)));
}

#[test]
fn a_rotation_that_cannot_write_its_file_changes_nothing() {
    let place = Place::new();
    {
        let store = place.open();
        for key in 0..20 {
            store.put(&id(key, 1), &[key; 32], &[], 0).unwrap();
        }
    }
    let before = place.records(b'S');
    // The temporary file's name is taken by a folder.
    let blocker = place.file.with_extension("new");
    fs::create_dir(&blocker).unwrap();
    assert!(matches!(error(place.open().rotate()), Error::EpochFile { .. }));
    fs::remove_dir(&blocker).unwrap();
    assert_eq!(place.records(b'S'), before);
    let store = place.open();
    for key in 0..20 {
        holds(&store, &id(key, 1), &[key; 32]);
    }
}

#[test]
fn concurrent_puts_of_one_name_have_one_winner_and_rotation_loses_none() {
    let place = Place::new();
    let store = place.open();
    let winners = std::thread::scope(|scope| {
        let putting: Vec<_> = (0..8_u8)
            .map(|thread| {
                let store = &store;
                scope.spawn(move || {
                    let put = |key: u8| store.put(&id(key, 1), &[thread; 32], &[envelope(2)], 0);
                    (0..40).filter(|key| put(*key).is_ok()).count()
                })
            })
            .collect();
        for _ in 0..4 {
            store.rotate().unwrap();
        }
        putting
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum::<usize>()
    });
    assert_eq!(winners, 40);
    assert_eq!(store.open_envelopes(), 40);
    store.rotate().unwrap();
    for key in 0..40 {
        let share = store.get(&id(key, 1)).unwrap().unwrap();
        assert!(share.expose().iter().all(|byte| *byte == share.expose()[0]));
    }
}

#[test]
fn no_plaintext_is_on_the_disk() {
    let place = Place::new();
    let mut rng = StdRng::seed_from_u64(3);
    let secrets: Vec<[u8; 32]> = (0..20).map(|_| rng.r#gen()).collect();
    let node_key: [u8; 32] = rng.r#gen();
    {
        let key = NodeKey::new(Box::new(node_key));
        let store = ShareStore::open(&place.path, &place.file, key, CLUSTER, 1, OsRng).unwrap();
        for (key, secret) in (0..).zip(&secrets) {
            store.put(&id(key, 1), secret, &[], 0).unwrap();
        }
        search(&place, &secrets, &node_key);
        store.rotate().unwrap();
    }
    search(&place, &secrets, &node_key);
}

/// Looks for every secret raw, reversed, in hex and in base64 at each of its three alignments, in every file.
fn search(place: &Place, secrets: &[[u8; 32]], node_key: &[u8; 32]) {
    let mut files: Vec<PathBuf> = fs::read_dir(&place.path)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.push(place.file.clone());
    assert!(files.len() > 3);
    let mut found_id = false;
    for file in files {
        let bytes = fs::read(&file).unwrap();
        let has = |needle: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
        found_id |= has(&id(3, 1).session);
        for secret in secrets.iter().chain([node_key]) {
            let reversed: Vec<u8> = secret.iter().rev().copied().collect();
            let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
            let forms = [
                secret.to_vec(),
                reversed,
                hex.clone().into_bytes(),
                hex.to_uppercase().into_bytes(),
            ];
            for form in forms
                .iter()
                .map(Vec::as_slice)
                .chain(base64(secret).iter().map(String::as_bytes))
            {
                assert!(!has(form), "{}", shown(&file));
            }
        }
    }
    // The search can find something: names are in the clear.
    assert!(found_id);
}

/// The characters of base64 that depend on the secret alone, for each alignment in a longer text.
fn base64(secret: &[u8]) -> Vec<String> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let encode = |bytes: &[u8]| -> String {
        let sextets = bytes.chunks_exact(3).flat_map(|chunk| {
            let bits = u32::from(chunk[0]) << 16 | u32::from(chunk[1]) << 8 | u32::from(chunk[2]);
            [18, 12, 6, 0].map(|shift| ALPHABET[(bits >> shift) as usize & 63] as char)
        });
        sextets.collect()
    };
    let plain = (0..3).map(|skip| encode(&secret[skip..]));
    let url = plain.clone().map(|text| text.replace('+', "-").replace('/', "_"));
    plain.chain(url).collect()
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

#[test]
fn a_flipped_bit_in_any_file_is_never_wrong_data() {
    let place = Place::new();
    {
        let store = place.open();
        for key in 0..30 {
            store.put(&id(key, 1), &[key; 32], &[], 0).unwrap();
        }
        store.rotate().unwrap();
        for key in 30..40 {
            store.put(&id(key, 1), &[key; 32], &[], 0).unwrap();
        }
    }
    let kept: Vec<_> = fs::read_dir(&place.path)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|file| file.is_file())
        .map(|file| (fs::read(&file).unwrap(), file))
        .filter(|(bytes, _)| !bytes.is_empty())
        .collect();
    let mut rng = StdRng::seed_from_u64(1);
    let mut noticed = 0;
    for _ in 0..60 {
        let (bytes, file) = &kept[rng.gen_range(0..kept.len())];
        let mut flipped = bytes.clone();
        flipped[rng.gen_range(0..bytes.len())] ^= 1 << rng.gen_range(0..8);
        let _ = fs::remove_dir_all(&place.path);
        fs::create_dir(&place.path).unwrap();
        for (bytes, other) in &kept {
            fs::write(other, if other == file { &flipped } else { bytes }).unwrap();
        }
        match place.open_as(1, CLUSTER, 1) {
            Err(_) => noticed += 1,
            Ok(store) => {
                for key in 0..40 {
                    match store.get(&id(key, 1)) {
                        Ok(Some(share)) => assert!(share.expose() == [key; 32]),
                        // The end of the log may be cut: RocksDB cannot tell damage there from a torn write.
                        Ok(None) => assert!(key >= 30),
                        Err(_) => noticed += 1,
                    }
                }
            }
        }
    }
    assert!(noticed > 0);
}
