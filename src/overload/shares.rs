//! Places for what is under way, shared fairly: whoever comes may have as many as are still free, and no more. One
//! alone gets half of them, three get a quarter each, and there is always one left for who comes next. Nothing has to be
//! known of who will come, and nothing is remembered of who has gone: the table has no more rows than places are taken.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Class, Overloaded};

/// Places, by whom they are taken.
pub struct Shares<K> {
    limit: usize,
    most: usize,
    taken: Arc<Mutex<Taken<K>>>,
}

struct Taken<K> {
    all: usize,
    by: HashMap<K, usize>,
}

/// A place; given back when dropped.
pub struct Place<K: Hash + Eq> {
    who: K,
    taken: Arc<Mutex<Taken<K>>>,
}

impl<K: Hash + Eq + Clone> Shares<K> {
    /// `limit` places, of which nobody gets more than `most`. A class finds only its part of both ([`Class::part_of`]).
    pub fn new(limit: usize, most: usize) -> Self {
        let taken = Taken {
            all: 0,
            by: HashMap::new(),
        };
        Self {
            limit,
            most,
            taken: Arc::new(Mutex::new(taken)),
        }
    }

    /// A place for `who`.
    ///
    /// # Errors
    /// [`Overloaded::Full`] without one for this class, [`Overloaded::Share`] if only `who` may have no more.
    pub fn enter(&self, who: K, class: Class) -> Result<Place<K>, Overloaded> {
        let mut taken = self.taken.lock();
        let free = class.part_of(self.limit).saturating_sub(taken.all);
        if free == 0 {
            return Err(Overloaded::Full);
        }
        let own = taken.by.get(&who).copied().unwrap_or(0);
        if own >= free.min(class.part_of(self.most)) {
            return Err(Overloaded::Share);
        }
        taken.all += 1;
        taken.by.insert(who.clone(), own + 1);
        drop(taken);
        Ok(Place {
            who,
            taken: self.taken.clone(),
        })
    }

    /// Places that are taken; the same can be asked later, too.
    pub fn taken(&self) -> impl Fn() -> usize + Send + Sync + 'static + use<K>
    where
        K: Send + 'static,
    {
        let taken = self.taken.clone();
        move || taken.lock().all
    }
}

impl<K: Hash + Eq> Drop for Place<K> {
    fn drop(&mut self) {
        let mut taken = self.taken.lock();
        taken.all -= 1;
        if let Some(count) = taken.by.get_mut(&self.who) {
            *count -= 1;
            if *count == 0 {
                taken.by.remove(&self.who);
            }
        }
        // What a crowd needed is not kept for ever.
        if taken.by.is_empty() && taken.by.capacity() > 64 {
            taken.by = HashMap::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fill(shares: &Shares<u8>, who: u8, class: Class) -> (Vec<Place<u8>>, Overloaded) {
        let mut places = Vec::new();
        loop {
            match shares.enter(who, class) {
                Ok(place) => places.push(place),
                Err(why) => return (places, why),
            }
        }
    }

    #[test]
    fn whoever_comes_finds_places_and_they_come_back() {
        let shares = Shares::new(4_096, 4_096);
        let (first, why) = fill(&shares, 1, Class::Changes);
        assert_eq!((first.len(), why), (2_048, Overloaded::Share));
        let (second, _) = fill(&shares, 2, Class::Changes);
        assert_eq!(second.len(), 1_024);
        let (third, _) = fill(&shares, 3, Class::Changes);
        assert_eq!(third.len(), 512);
        drop(first);
        assert_eq!(fill(&shares, 3, Class::Changes).0.len() + third.len(), 1_536);
        drop((second, third));
        assert_eq!(shares.taken()(), 0);
        assert!(shares.taken.lock().by.is_empty());
    }

    #[test]
    fn a_crowd_of_one_class_leaves_room_for_the_next() {
        let shares = Shares::new(400, 400);
        let mut crowd = Vec::new();
        for (class, all) in Class::ALL.into_iter().zip([100, 200, 300, 400]) {
            crowd.extend((0..=u8::MAX).flat_map(|who| fill(&shares, who, class).0));
            assert_eq!(crowd.len(), all, "{class:?}");
            assert_eq!(shares.enter(0, class).err(), Some(Overloaded::Full));
        }
    }

    #[test]
    fn nobody_gets_more_than_the_most() {
        let shares = Shares::new(4_096, 8);
        let sizes = Class::ALL.map(|class| fill(&shares, 1, class).0.len());
        assert_eq!(sizes, [2, 4, 6, 8]);
    }

    proptest! {
        /// Whatever came and went before: who has less than others gets a place when somebody does.
        #[test]
        fn nobody_is_refused_for_what_others_have(steps in proptest::collection::vec((0..6_u8, 0..3_u8), 0..400)) {
            let shares = Shares::new(32, 32);
            let mut places: Vec<Vec<Place<u8>>> = (0..6).map(|_| Vec::new()).collect();
            for (who, what) in steps {
                let at = usize::from(who);
                if what == 0 {
                    places[at].pop();
                    continue;
                }
                let mine = places[at].len();
                let taken: usize = places.iter().map(Vec::len).sum();
                match shares.enter(who, Class::Changes) {
                    Ok(place) => {
                        prop_assert!(mine < 32 - taken);
                        places[at].push(place);
                    }
                    Err(Overloaded::Share) => prop_assert!(mine > 0 && mine >= 32 - taken),
                    Err(_) => prop_assert!(taken == 32),
                }
                prop_assert!(taken <= 32);
            }
            drop(places);
            prop_assert!(shares.taken.lock().by.is_empty());
        }
    }
}
