//! How operators' orders follow each other, wherever they are counted: in a group's state, in a snapshot, in a file.

use std::sync::Arc;

use super::{Membership, NewMembers};

/// Lists of members, each ordered in the place of the one before it, or in the place of one that was taken back.
#[derive(Clone, Debug)]
pub struct Lineage {
    base: Arc<Membership>,
    last: Arc<Membership>,
    highest: u64,
}

impl Lineage {
    /// Nothing was ordered yet.
    pub fn new(genesis: Arc<Membership>) -> Self {
        Self::between(genesis.clone(), genesis, 0)
    }

    /// With the last list, the one that it was ordered in the place of, and the highest number that a node had so far.
    pub fn between(base: Arc<Membership>, last: Arc<Membership>, highest: u64) -> Self {
        let of = |members: &Membership| members.members.last().map_or(0, |member| member.node);
        Self {
            highest: highest.max(of(&base)).max(of(&last)),
            base,
            last,
        }
    }

    /// The last list.
    pub fn last(&self) -> &Arc<Membership> {
        &self.last
    }

    /// What the last list was ordered in the place of.
    pub fn base(&self) -> &Arc<Membership> {
        &self.base
    }

    /// The highest number that a node had so far.
    pub fn highest(&self) -> u64 {
        self.highest
    }

    /// Whether an order takes the last one back: it starts from the same members.
    pub fn takes_back(&self, new: &NewMembers) -> bool {
        self.base.index < self.last.index && new.replaces.0 == self.base.digest()
    }

    /// The members that an order makes.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn next(&self, new: &NewMembers) -> Result<Membership, &'static str> {
        let takes_back = self.takes_back(new);
        if new.number != self.last.index + 1 || !takes_back && new.replaces.0 != self.last.digest() {
            return Err("the order replaces other members than there are");
        }
        let known = |node| {
            let base = takes_back.then(|| self.base.member(node)).flatten();
            self.last.member(node).or(base)
        };
        self.last.followed_by(new, known, self.highest)
    }

    /// The same, which is the last list from then on.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn follow(&mut self, new: &NewMembers) -> Result<(), &'static str> {
        let next = Arc::new(self.next(new)?);
        let base = match self.takes_back(new) {
            true => &self.base,
            false => &self.last,
        };
        *self = Self::between(base.clone(), next, self.highest);
        Ok(())
    }
}
