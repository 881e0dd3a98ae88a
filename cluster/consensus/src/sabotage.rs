//! Bugs put in on purpose, so that the simulator can show that it finds them (feature `sabotage`).
//!
//! Without the feature the type has no value, so no build that serves clients can contain one.

/// One rule of consensus.md 1, broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sabotage {
    /// A decision waits for what is pending, and then decides by the state from before the wait.
    #[cfg(feature = "sabotage")]
    DecideByOldState,
    /// Pending entries are published a tick after the message that acknowledged them.
    #[cfg(feature = "sabotage")]
    PublishAfterAcknowledging,
    /// New members vote before they have caught up with the log.
    #[cfg(feature = "sabotage")]
    VotesBeforeCaughtUp,
    /// While two lists decide together only the new one is counted.
    #[cfg(feature = "sabotage")]
    CountsOneList,
}

/// Whether `planted` is the bug that publishes pending entries too late.
pub(crate) fn publishes_late(planted: Option<Sabotage>) -> bool {
    match planted {
        #[cfg(feature = "sabotage")]
        Some(Sabotage::PublishAfterAcknowledging) => true,
        _ => false,
    }
}

/// Whether `planted` is the bug that decides by the state from before the wait.
pub(crate) fn decides_by_old_state(planted: Option<Sabotage>) -> bool {
    match planted {
        #[cfg(feature = "sabotage")]
        Some(Sabotage::DecideByOldState) => true,
        _ => false,
    }
}

/// Whether `planted` is the bug that lets new members vote at once.
pub(crate) fn votes_early(planted: Option<Sabotage>) -> bool {
    match planted {
        #[cfg(feature = "sabotage")]
        Some(Sabotage::VotesBeforeCaughtUp) => true,
        _ => false,
    }
}

/// After raft has begun to count by two lists: with the bug it takes the new one for both.
pub(crate) fn forget_outgoing<T: raft::Storage>(planted: Option<Sabotage>, _raw: &mut raft::RawNode<T>) {
    match planted {
        #[cfg(feature = "sabotage")]
        Some(Sabotage::CountsOneList) => {
            let tracker = _raw.raft.mut_prs();
            let Ok((one_list, _)) = raft::Changer::new(tracker).leave_joint() else {
                return;
            };
            tracker.apply_conf(one_list, Vec::new(), 0);
            let voters = tracker.conf().to_conf_state().voters;
            let same = raft::eraftpb::ConfChangeSingle {
                node_id: voters.first().copied().unwrap_or(0),
                ..Default::default()
            };
            if let Ok((twice, _)) = raft::Changer::new(tracker).enter_joint(false, &[same]) {
                tracker.apply_conf(twice, Vec::new(), 0);
            }
        }
        _ => {}
    }
}
