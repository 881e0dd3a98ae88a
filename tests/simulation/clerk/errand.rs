//! What a core that is left alone has to achieve: an update, a use, a revocation and a read, each tried again and again.

use conclave_simulator::Node;

use super::{Clerk, Message, seconds};
use crate::clients;

/// After so long it is tried again, ms.
const RETRY: u64 = 700;

impl Clerk {
    pub(super) fn pursue(&mut self, node: &mut Node<'_, Message>, number: u64) {
        let now = node.now();
        let waits = |(last, at): (u64, u64)| last == number && now < at + RETRY;
        if self.tried.is_some_and(waits) {
            return;
        }
        self.tried = Some((number, now));
        let errand = Some(number);
        let now = seconds(node);
        let (meter, known) = {
            let history = self.shared.history.borrow();
            let first = history.keystores.iter().next();
            let known = first.map(|(id, tenant)| (*id, tenant.keys.is_empty()));
            (history.meter, known)
        };
        let (keystore, keyless) = match (meter, known) {
            (None, _) => return self.start_change(node, clients::create_meter(now), errand),
            (Some(meter), None) => {
                return self.start_change(node, clients::create_keystore(&meter, now), errand);
            }
            (_, Some(known)) => known,
        };
        let sequence = self.sequence(node, &keystore);
        match number % 4 {
            1 if !keyless => self.start_use(node, keystore, errand),
            2 => {
                let delegated = self.delegate(node, keystore, sequence);
                self.revoke(node, (keystore, sequence), &delegated, errand);
            }
            3 => self.read(node, keystore, errand),
            _ => self.start_change(node, clients::hand_on(&keystore, sequence + 1, now), errand),
        }
    }
}
