//! The order of sacrifice. What is not here is never given up: Raft has a thread and a lane of its own.

/// What is given up first comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// What nobody waits for: renewals and moves of shares, second looks at what was applied.
    Bulk,
    /// Uses of symmetric keys: each costs some hundred signatures.
    Symmetric,
    /// Signatures, derivations and reads.
    Signatures,
    /// Changes of the replicated state: revocations above all.
    Changes,
}

impl Class {
    /// From what is given up first to what is given up last.
    pub const ALL: [Self; 4] = [Self::Bulk, Self::Symmetric, Self::Signatures, Self::Changes];

    /// Its place in [`Class::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// As metrics and logs call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bulk => "bulk",
            Self::Symmetric => "symmetric",
            Self::Signatures => "signatures",
            Self::Changes => "changes",
        }
    }

    /// How much of `bound` may be taken when one of this class comes: a quarter, a half, three quarters, all of it. So
    /// there is room for what matters more whatever came before. At least 1.
    pub const fn part_of(self, bound: usize) -> usize {
        let quarter = bound.div_ceil(Self::ALL.len());
        let part = quarter.saturating_mul(self.index() + 1);
        let part = if part < bound { part } else { bound };
        if part == 0 { 1 } else { part }
    }

    /// The class above, or this one where there is none: for the last step of what every node has done its part of.
    pub const fn raised(self) -> Self {
        match self {
            Self::Bulk => Self::Symmetric,
            Self::Symmetric => Self::Signatures,
            Self::Signatures | Self::Changes => Self::Changes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_class_finds_room_that_the_ones_before_it_cannot_take() {
        let parts = Class::ALL.map(|class| class.part_of(4_096));
        assert_eq!(parts, [1_024, 2_048, 3_072, 4_096]);
        assert_eq!(Class::ALL.map(|class| class.part_of(2)), [1, 2, 2, 2]);
        assert_eq!(Class::ALL.map(|class| class.part_of(0)), [1, 1, 1, 1]);
        assert!(Class::ALL.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
