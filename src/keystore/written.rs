//! The newest format in which this group's state has been written. It is part of the state and never falls: a build that
//! does not know it stops here, also where it gets a snapshot and none of the entries.

use super::layout;
use super::state::{ReadState, StateError, WriteState};
use crate::format::{FIRST, Format};

/// The newest format of the entries that the group has taken.
///
/// # Errors
/// When the state cannot be read.
pub fn format(state: &impl ReadState) -> Result<Format, StateError> {
    Ok(state.record(layout::FORMAT)?.unwrap_or(FIRST))
}

/// The group has taken an entry of this format.
///
/// # Errors
/// When the store fails.
pub fn raise(taken: Format, state: &mut impl WriteState) -> Result<(), StateError> {
    if taken > format(state)? {
        state.put_record(layout::FORMAT, &taken)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn it_rises_and_never_falls() {
        let mut state = BTreeMap::new();
        assert_eq!(format(&state).unwrap(), FIRST);
        raise(3, &mut state).unwrap();
        raise(2, &mut state).unwrap();
        assert_eq!(format(&state).unwrap(), 3);
    }

    #[test]
    fn nothing_is_written_before_it_rises() {
        let mut state = BTreeMap::new();
        raise(FIRST, &mut state).unwrap();
        assert_eq!(ReadState::get(&state, layout::FORMAT).unwrap(), None);
    }
}
