//! Which format a node may use with whom: with a peer the newest that both speak, and in a group's log the newest that every
//! member, and everybody who is to become one, has stated. What each can read is learnt from the first frame of its links.

use conclave_consensus::GroupId;
use conclave_transport::Formats;

use super::metrics::OfNode;
use super::parts::Parts;
use super::wire::{Abstention, Answer};
use crate::format::{Format, NEWEST, OLDEST};
use crate::keystore::{Entry, written};
use crate::problem::Problem;

/// What this build states to its peers.
pub const SPOKEN: Formats = match Formats::new(OLDEST, NEWEST) {
    Some(formats) => formats,
    None => Formats::only(NEWEST),
};

/// The format of a group's next entry in a build that speaks `own`: the newest that everybody has stated, and none below
/// what is in its state already. A member that has stated nothing counts as one of the oldest build.
fn agreed(own: Formats, stated: impl IntoIterator<Item = Option<Formats>>, written: Format) -> Format {
    let (oldest, newest) = (own.lowest(), own.highest());
    let stated = stated
        .into_iter()
        .map(|formats| formats.map_or(oldest, Formats::highest));
    let agreed = stated.min().unwrap_or(oldest).clamp(oldest, newest);
    // Where it has been written, no older build can take part any more.
    agreed.max(written.min(newest))
}

impl Parts {
    /// The format of what this node says to another one.
    pub fn speaks(&self, node: u64) -> Format {
        match node == self.node {
            true => NEWEST,
            // Nothing is sent where there is no link.
            false => self.network.format_with(node).unwrap_or(OLDEST),
        }
    }

    /// What is answered to a call that this build cannot read: `unknown` is its format, if that is why. It is counted.
    pub fn cannot_read(&self, from: u64, unknown: Option<Format>) -> Answer {
        self.metrics.unread.get_or_create(&OfNode { node: from }).inc();
        let reason = match unknown {
            Some(format) => format!("a call in format {format}, and this node speaks {SPOKEN}"),
            None => "a call that cannot be read".to_owned(),
        };
        tracing::warn!(from, reason, "a call was not understood");
        Answer::Misfit(reason)
    }

    /// What a node has stated that it speaks, as far as this one has heard.
    pub fn stated_by(&self, node: u64) -> Option<Formats> {
        match node == self.node {
            true => Some(SPOKEN),
            false => self.network.formats_of(node),
        }
    }

    /// The format of a group's next entry, and the newest that has been written there.
    ///
    /// # Errors
    /// [`Abstention::Behind`] where the state cannot be read.
    pub fn formats_in(&self, group: GroupId) -> Result<(Format, Format), Abstention> {
        let view = self.consensus.view(group).map_err(|_| Abstention::Behind)?;
        let written = written::format(&view).map_err(|_| Abstention::Behind)?;
        let roster = self.roster_in(&view).map_err(|_| Abstention::Behind)?;
        let members = roster.everybody();
        let stated = members.map(|member| self.stated_by(member.node));
        Ok((agreed(SPOKEN, stated, written), written))
    }

    /// The oldest format that a group's next entry would be in, and the newest that has been written in any group.
    ///
    /// # Errors
    /// As [`Parts::formats_in`].
    pub fn formats(&self) -> Result<(Format, Format), Abstention> {
        let groups = (0..self.rules.groups).map(GroupId);
        let groups = groups.filter(|group| !self.is_outside(*group));
        let groups = groups.map(|group| self.formats_in(group));
        let all = groups.collect::<Result<Vec<_>, _>>()?;
        let agreed = all.iter().map(|(agreed, _)| *agreed).min();
        let written = all.iter().map(|(_, written)| *written).max();
        Ok((agreed.unwrap_or(OLDEST), written.unwrap_or(OLDEST)))
    }

    /// An entry as it goes into a group's log.
    ///
    /// # Errors
    /// The state cannot be read, or the build of a member does not know such an entry yet.
    pub fn encode_entry(&self, group: GroupId, entry: &Entry) -> Result<Vec<u8>, Problem> {
        let formats = self.formats_in(group);
        let (format, _) = formats.map_err(|error| Problem::unavailable(format!("Not now: {error}.")))?;
        entry.encode_in(format).ok_or_else(|| {
            Problem::unavailable(
                "Not every node has a version that knows this change; try again when all have.",
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_build_decides_and_what_is_written_stays() {
        let formats = |lowest, highest| Formats::new(lowest, highest);
        let (older, same, newer) = (formats(3, 4), formats(4, 5), formats(5, 6));
        let in_5 =
            |stated: &[Option<Formats>], written| agreed(same.unwrap(), stated.iter().copied(), written);
        assert_eq!(in_5(&[same, newer, same], 4), 5);
        assert_eq!(in_5(&[same, older, newer], 4), 4);
        assert_eq!(
            in_5(&[same, older, newer], 5),
            5,
            "it is too late for the older one"
        );
        assert_eq!(in_5(&[same, None, newer], 4), 4, "away since the start");
        assert_eq!(
            in_5(&[same, formats(1, 2), newer], 4),
            4,
            "no neighbour: never below what is spoken"
        );
        assert_eq!(in_5(&[newer, newer], 6), 5, "never above what this build writes");
        assert_eq!(in_5(&[], 4), 4);
    }
}
