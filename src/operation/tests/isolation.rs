//! I10: whatever chain is rooted in one tenant's keystore opens nothing of another's.

use proptest::prelude::*;
use serde_json::Value;

use super::*;

/// A chain of `people` under Mallory's root: each delegates everything at `target` to the next.
fn chain(people: &[u8], target: &str) -> Value {
    let root = url(&keystore_path(&OTHER_KS));
    let mut from = MALLORY;
    let mut last: Option<Value> = None;
    for (depth, to) in people.iter().enumerate() {
        let id = format!("urn:uuid:{depth}");
        let terms = Terms {
            actions: None,
            ..Terms::new(&id, target, &[])
        };
        let parent = last
            .as_ref()
            .map_or(Capability::Root(&root), Capability::Delegated);
        last = Some(terms.delegate(from, *to, parent));
        from = *to;
    }
    last.unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn no_chain_of_one_tenant_opens_another_s_keystore(
        people in prop::collection::vec(prop::sample::select(vec![ALICE, ANNE, BOB, MALLORY]), 1..4),
        its_own_target in any::<bool>(),
        operation in 0..4,
    ) {
        let desk = Desk::new();
        // Aimed at Alice's keystore, or at Mallory's own and merely invoked at Alice's.
        let target = url(&keystore_path(if its_own_target { &OTHER_KS } else { &KS }));
        let capability = chain(&people, &target);
        let who = people[people.len() - 1];
        let (path, root) = (key_path(&KS, &SIGN_KEY), keystore_path(&KS));
        let result = match operation {
            0 => desk.post_with(who, &path, &capability, "sign", &keys::sign_body(&path, b"m")),
            1 => desk.post_with(who, &format!("{root}/keys"), &capability, "generateKey", &keys::generate_body()),
            2 => desk.post_with(who, &root, &capability, "write", &keystores::hand_over(MALLORY)),
            _ => {
                let target = revocations::path(&KS, capability["id"].as_str().unwrap());
                desk.post_with(who, &target, &capability, "write", &capability)
            }
        };
        let problem = problem(result);
        prop_assert_eq!(problem.status, 403, "{:?}", problem);
        // At Mallory's own keystore the same chain works: it is the tenant, not the chain, that is refused.
        if its_own_target {
            let own = key_path(&OTHER_KS, &OTHER_KEY);
            prop_assert!(desk.post_with(who, &own, &capability, "sign", &keys::sign_body(&own, b"m")).is_ok());
        }
    }
}
