//! A client's request as one node gives it to another, and what the verifier makes of it: as it came and signed anew.

use conclave::authorization::{ChainCache, Expectation, ExpectedRoot, RawRequest, authorize, name_of_signed};
use conclave::operation::route::Route;

use super::{Seed, Target, seed};
use crate::support::key::alice;
use crate::support::request::{AUTHORITY, KEYSTORE, NOW, judge, policy, resign};
use crate::support::vectors;

pub(super) const TARGET: Target = Target {
    name: "request",
    longest: 8_192,
    mutations: 5_000,
    run,
    seeds,
};

fn run(bytes: &[u8]) -> bool {
    let Ok(mut request) = RawRequest::decode(bytes) else {
        return false;
    };
    assert_eq!(request.encode(), bytes, "a request has one encoding");
    let as_it_came = is_taken(&request);
    resign(&mut request);
    is_taken(&request) || as_it_came
}

fn is_taken(request: &RawRequest) -> bool {
    let part = request.signed_part();
    let Ok(taken) = judge(request) else {
        return false;
    };
    let part = part.expect("what was taken has a signed part");
    assert_eq!(
        part.signed_part().ok().as_ref(),
        Some(&part),
        "all of it is signed"
    );
    let again = judge(&part).expect("the signed part is all that another node needs");
    assert_eq!((again.name, &again.action), (taken.name, &taken.action));
    let name = name_of_signed(&taken.key_id, &taken.signing_string, &taken.signature);
    assert_eq!(name, Some(taken.name), "what is left on record says whose it was");
    let route = Route::parse(&request.method, &request.target);
    if let Some(keystore) = route.as_ref().and_then(Route::keystore) {
        assert!(
            request.target.contains(&keystore.text),
            "nothing of a target is decoded"
        );
    }
    let roots = [ExpectedRoot::new(KEYSTORE, vec![alice().names.did.clone()])];
    let target = format!("https://{AUTHORITY}{}", request.target);
    let expectation = Expectation {
        roots: &roots,
        target: &target,
        action: &taken.action,
        max_delegation_ttl: None,
        revoked: &|_, _| false,
    };
    if let Ok(authorized) = authorize(&taken, &expectation, &policy(), &ChainCache::new(0), NOW * 1_000) {
        assert_eq!(authorized.invoker, taken.signer);
        assert!(
            target.starts_with(KEYSTORE),
            "no right over another keystore: {target}"
        );
        assert!((1..=10).contains(&authorized.chain_length));
        assert_eq!(authorized.chain.len() + 1, authorized.chain_length);
    }
    true
}

fn seeds() -> Vec<Seed> {
    let requests = vectors::requests().into_iter();
    let some = requests.filter(|(name, _)| !name.starts_with("bad") || name.contains("stripped"));
    some.map(|(name, request)| seed(name, request.encode())).collect()
}
