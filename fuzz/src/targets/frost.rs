//! Signatures with what another signer sends: what comes out verifies anywhere, and who is named is who lied.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use conclave_threshold::Purpose;
use conclave_threshold::dkg::Outcome;
use conclave_threshold::frost::{self, CommitmentList, NonceCommitments, VerifyingContext};
use ed25519_dalek::{Signature, VerifyingKey};
use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;

use super::{Seed, Target, seed};
use crate::support::ceremony::{CORRUPT, honest};
use crate::support::input::{Input, Output};

pub(super) const TARGET: Target = Target {
    name: "frost",
    longest: 512,
    mutations: 500,
    run,
    seeds,
};

const FRAME: [u8; 32] = [5; 32];
const MESSAGE: &[u8] = b"message";

static KEY: LazyLock<BTreeMap<u16, Outcome>> = LazyLock::new(|| honest(Purpose::Sign).1);

/// Commitments and a signature share of member 3 in a signature of member 1's, for this message.
fn run(bytes: &[u8]) -> bool {
    let mut input = Input(bytes);
    let theirs = NonceCommitments {
        hiding: input.array(),
        binding: input.array(),
    };
    let (share, message) = (input.array(), input.chunk());
    let encoded = postcard::to_stdvec(&theirs).expect("points can be written");
    assert_eq!(postcard::from_bytes::<NonceCommitments>(&encoded), Ok(theirs));
    let key = &KEY[&1];
    let context = VerifyingContext::new(&key.commitment).expect("a key that signs");
    let mut rng = ChaCha20Rng::from_seed([9; 32]);
    let cosigned = frost::cosign(&key.share, &context, message, (CORRUPT, theirs), &FRAME, &mut rng);
    assert_eq!(
        cosigned.is_ok(),
        theirs.are_sound(),
        "a signer takes sound points only"
    );

    let (nonces, ours) = frost::commit(&key.share, &FRAME, &mut rng).expect("a key that signs");
    let list = CommitmentList::from([(1, ours), (CORRUPT, theirs)]);
    let shares = BTreeMap::from([(CORRUPT, share)]);
    let signed = frost::finish(nonces, &key.share, &context, message, &list, &shares);
    let both = BTreeMap::from([(1, share), (CORRUPT, share)]);
    let aggregated = frost::aggregate(&context, message, &list, &both);
    let public = VerifyingKey::from_bytes(&key.commitment.public_key()).expect("a public key");
    for signed in [&signed, &aggregated].into_iter().flatten() {
        let signature = Signature::from_bytes(signed);
        assert!(public.verify_strict(message, &signature).is_ok());
    }
    if let Err(culprits) = &signed {
        assert!(
            culprits.members.iter().all(|member| *member == CORRUPT),
            "{culprits:?}"
        );
    }
    signed.is_ok()
}

/// What an honest member 3 sends, whose nonces are those of the same run.
fn seeds() -> Vec<Seed> {
    let (key, other) = (&KEY[&1], &KEY[&CORRUPT]);
    let context = VerifyingContext::new(&key.commitment).expect("a key that signs");
    let (nonces, theirs) =
        frost::commit(&other.share, &FRAME, &mut ChaCha20Rng::from_seed([8; 32])).expect("a key that signs");
    // The same draws as in a run: a cosignature first.
    let mut rng = ChaCha20Rng::from_seed([9; 32]);
    let cosigned = frost::cosign(&key.share, &context, MESSAGE, (CORRUPT, theirs), &FRAME, &mut rng);
    assert!(cosigned.is_ok());
    let (_, ours) = frost::commit(&key.share, &FRAME, &mut rng).expect("a key that signs");
    let list = CommitmentList::from([(1, ours), (CORRUPT, theirs)]);
    let share = frost::sign(nonces, &other.share, &context, MESSAGE, &list).expect("an honest share");
    let points = |output: Output| output.bytes(&theirs.hiding).bytes(&theirs.binding);
    let honest = points(Output::default()).bytes(&share).chunk(MESSAGE);
    let mut identity = [0; 32];
    identity[0] = 1;
    let torsion = Output::default().bytes(&identity).bytes(&theirs.binding);
    vec![
        seed("honest", honest.0),
        seed(
            "another-message",
            points(Output::default()).bytes(&share).chunk(b"other").0,
        ),
        seed("identity", torsion.bytes(&share).chunk(MESSAGE).0),
    ]
}
