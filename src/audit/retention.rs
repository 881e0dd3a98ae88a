//! Which sealed segments go. The oldest go first and whole; the chain then starts at the hash that the first
//! remaining header declares.

use std::path::PathBuf;

use super::settings::Settings;

/// A sealed segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sealed {
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
    /// No record of it is younger.
    pub(super) last_ms: u64,
    pub(super) compressed: bool,
}

/// How many of `sealed`, oldest first, have to go at record time `now_ms`.
pub(super) fn expired(sealed: &[Sealed], settings: &Settings, now_ms: u64) -> usize {
    let mut bytes = sealed.iter().map(|segment| segment.bytes).sum::<u64>() + settings.segment_bytes;
    let mut count = 0;
    for segment in sealed {
        let age = now_ms.saturating_sub(segment.last_ms);
        let replays_need_it = age <= settings.replay_window_ms;
        let kept = age <= settings.retention.age_ms && bytes <= settings.retention.bytes;
        if replays_need_it || kept {
            break;
        }
        bytes -= segment.bytes;
        count += 1;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::super::settings::{Retention, Settings};
    use super::{Sealed, expired};

    fn segments(last: &[u64]) -> Vec<Sealed> {
        last.iter()
            .map(|last_ms| Sealed {
                path: "x".into(),
                bytes: 10_000,
                last_ms: *last_ms,
                compressed: false,
            })
            .collect()
    }

    #[test]
    fn age_and_bytes_remove_the_oldest_but_never_the_replay_window() {
        let mut settings = Settings::new([1; 32], 1);
        settings.segment_bytes = 10_000;
        settings.replay_window_ms = 100;
        settings.retention = Retention {
            age_ms: 1000,
            bytes: u64::MAX,
        };
        assert_eq!(expired(&segments(&[100, 200, 5000]), &settings, 1150), 1);
        assert_eq!(expired(&segments(&[100, 200, 5000]), &settings, 1250), 2);
        settings.retention = Retention {
            age_ms: 1_000_000,
            bytes: 25_000,
        };
        assert_eq!(expired(&segments(&[100, 200, 300]), &settings, 1250), 2);
        assert_eq!(expired(&segments(&[1200, 1210, 1220]), &settings, 1250), 0);
    }
}
