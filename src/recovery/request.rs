//! What a machine that restores asks the recovery officers, and what they answer.
//!
//! A request names the new cluster by its genesis statement, which an operator of the old one should have signed, the node in
//! it that restores, and the backups by their headers. It may ask for the shares of that node's own backup and for nobody
//! else's: who answers sees to it that no machine gets the shares of two nodes. Answers are sealed to the restoring node's key.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use conclave_threshold::envelope::EnvelopeKey;
use conclave_threshold::letter;
use rand::{CryptoRng, RngCore};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::files::Officer;
use super::header::VerifiedHeader;
use super::officers::{BackupKey, OfficerAnswer, OfficerKeys, SealedKey};
use super::{RecoveryError, time_text};
use crate::config::{
    Hex32,
    fields::{decode_hex, encode_hex},
};
use crate::membership::Lineage;
use crate::provision::Genesis;

/// The largest request: a header of each node.
pub const MAX_REQUEST: usize = 32 * 1024 * 1024;
/// The largest answer.
pub const MAX_ANSWER: usize = 64 * 1024;
const REQUEST_TYPE: &str = "conclave recovery request";
const ANSWER_TYPE: &str = "conclave recovery answer";
const MAX_BACKUPS: usize = 64;

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct RequestFile {
    r#type: String,
    node: u64,
    target: String,
    backups: Vec<String>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct AnswerFile {
    r#type: String,
    request: Hex32,
    officer: u8,
    sealed: String,
}

/// A request, verified.
#[derive(Clone, Debug)]
pub struct Request {
    /// The new cluster.
    target: Genesis,
    /// The node in it that restores.
    node: u64,
    /// The backups, by rising node.
    backups: Vec<VerifiedHeader>,
}

/// The keys of one backup.
pub struct Keys {
    /// Of its state.
    pub state: BackupKey,
    /// Of its shares, if it is the restoring node's own.
    pub shares: Option<BackupKey>,
}

/// One officer's answer, as it travels.
#[derive(Clone, Debug)]
pub struct Answer {
    request: [u8; 32],
    officer: u8,
    sealed: Vec<u8>,
}

fn unfit(text: impl Into<String>) -> RecoveryError {
    RecoveryError::Unfit(text.into())
}

impl Request {
    /// What node `node` of the new cluster `target` asks for, given these backups.
    ///
    /// # Errors
    /// [`RecoveryError::Unfit`] says what does not belong together.
    pub fn new(target: Genesis, node: u64, mut backups: Vec<VerifiedHeader>) -> Result<Self, RecoveryError> {
        backups.sort_by_key(|backup| backup.header.node);
        let request = Self {
            target,
            node,
            backups,
        };
        request.check()?;
        Ok(request)
    }

    fn check(&self) -> Result<(), RecoveryError> {
        let first = self.backups.first().ok_or_else(|| unfit("there is no backup"))?;
        if self.backups.len() > MAX_BACKUPS {
            return Err(unfit("more backups than a cluster has nodes"));
        }
        for (at, backup) in self.backups.iter().enumerate() {
            let header = &backup.header;
            if header.cluster != first.header.cluster {
                return Err(unfit("the backups are of different clusters"));
            }
            if backup.officers != first.officers {
                return Err(unfit(
                    "the backups are sealed to different recovery officers: take those that were made after \
                     the last `conclave recovery init`",
                ));
            }
            if self.backups[..at]
                .iter()
                .any(|other| other.header.node == header.node)
            {
                return Err(unfit(format!("two backups are of node {}", header.node)));
            }
        }
        if self.target.cluster_id() == first.header.cluster {
            return Err(unfit(
                "a restore goes into a new cluster that `conclave init` has made, not into the old one",
            ));
        }
        if self.target.member(self.node).is_none() {
            return Err(unfit(format!(
                "node {} is no member of the new cluster",
                self.node
            )));
        }
        // A share is of its node's number. While members change, keys are with those that are replaced, too.
        let members = self.members();
        let (last, before) = (members.last().nodes(), members.base().nodes());
        let nodes = self.target.nodes();
        let groups = first.genesis.body().groups;
        if nodes != last && nodes != before || self.target.body().groups != groups {
            return Err(unfit(format!(
                "the new cluster must have the node numbers that the old one had last, {last:?}, or before its last change, \
                 {before:?}, and {groups} groups"
            )));
        }
        Ok(())
    }

    /// The old cluster's members as the backup says that knows the last of them.
    fn members(&self) -> &Lineage {
        // `check` has seen a first one.
        let all = self.backups.iter().map(|backup| &backup.members);
        all.max_by_key(|members| members.last().index)
            .unwrap_or(&self.backups[0].members)
    }

    /// Reads and verifies one.
    ///
    /// # Errors
    /// [`RecoveryError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, RecoveryError> {
        let file: RequestFile =
            serde_json::from_slice(bytes).map_err(|_| unfit("this is no recovery request"))?;
        if file.r#type != REQUEST_TYPE || file.backups.len() > MAX_BACKUPS {
            return Err(unfit("this is no recovery request"));
        }
        let headers = file.backups.iter().map(|text| {
            let bytes = BASE64_STANDARD.decode(text);
            VerifiedHeader::parse(&bytes.map_err(|_| unfit("a header is not base64"))?)
        });
        let target = Genesis::parse(file.target.as_bytes())?;
        Self::new(target, file.node, headers.collect::<Result<_, _>>()?)
    }

    /// As it travels.
    pub fn to_json(&self) -> Vec<u8> {
        let file = RequestFile {
            r#type: REQUEST_TYPE.to_owned(),
            node: self.node,
            target: String::from_utf8_lossy(&self.target.to_json()).into_owned(),
            backups: self
                .backups
                .iter()
                .map(|backup| BASE64_STANDARD.encode(backup.bytes()))
                .collect(),
        };
        // Texts and numbers only: cannot fail.
        serde_json::to_vec(&file).unwrap_or_default()
    }

    /// The backups, by rising node.
    pub fn backups(&self) -> &[VerifiedHeader] {
        &self.backups
    }

    /// The officers who are asked.
    pub fn officers(&self) -> &OfficerKeys {
        // `check` has seen a first one.
        &self.backups[0].officers
    }

    /// Whether an operator of the old cluster has signed who the new one's members are.
    pub fn is_by_an_operator(&self) -> bool {
        let operators = &self.backups[0].genesis.body().operators;
        self.target.signers().any(|signer| operators.contains(signer))
    }

    /// Names the request: what answers are bound to.
    pub fn hash(&self) -> [u8; 32] {
        let mut hash = Sha256::new_with_prefix(b"conclave recovery request 1");
        hash.update(self.target.cluster_id());
        hash.update(self.node.to_be_bytes());
        for backup in &self.backups {
            hash.update(backup.hash());
        }
        hash.finalize().into()
    }

    /// The sealed keys that are asked for, in order.
    fn asked(&self) -> impl Iterator<Item = &SealedKey> {
        self.backups.iter().flat_map(|backup| {
            let own = (backup.header.node == self.node).then_some(&backup.shares_key);
            [Some(&backup.state_key), own].into_iter().flatten()
        })
    }

    /// What an officer answers for, a line each.
    pub fn describe(&self) -> Vec<String> {
        let target = Hex32(self.target.cluster_id());
        let member = self.target.member(self.node);
        let key = member
            .map(|member| member.envelope.to_string())
            .unwrap_or_default();
        let mut lines = vec![
            format!("Restore of node {} in the new cluster {target}.", self.node),
            format!("Only the machine with the node key of {key} can read the answer."),
            match self.is_by_an_operator() {
                true => "An operator of the old cluster has signed the new cluster's members.".to_owned(),
                false => "NO OPERATOR OF THE OLD CLUSTER HAS SIGNED THE NEW CLUSTER'S MEMBERS.".to_owned(),
            },
        ];
        for backup in &self.backups {
            let what = match backup.header.node == self.node {
                true => "its state and THIS NODE'S SHARES of all keys",
                false => "its state: keystores, public keys, revocations; no shares",
            };
            lines.push(format!(
                "Backup of {} (version {}): {what}.",
                backup.describe(),
                backup.header.version
            ));
        }
        lines
    }

    /// When the newest of its backups was made.
    pub fn newest(&self) -> String {
        let newest = self.backups.iter().map(|backup| backup.header.made).max();
        time_text(newest.unwrap_or(0))
    }

    fn about(&self, officer: u8) -> Vec<u8> {
        let fingerprint = self.officers().fingerprint();
        [
            &b"conclave recovery answer 1"[..],
            &self.hash(),
            &fingerprint,
            &[officer],
        ]
        .concat()
    }

    /// An officer's answer; the officer has seen [`Request::describe`] and agreed.
    ///
    /// # Errors
    /// If it is not this officer's to answer.
    pub fn answer(
        &self,
        officer: &Officer,
        rng: &mut (impl CryptoRng + RngCore),
    ) -> Result<Answer, RecoveryError> {
        if officer.cluster != self.backups[0].header.cluster || officer.keys != *self.officers() {
            return Err(unfit(
                "the backups are of another cluster or sealed to other officers than this share's",
            ));
        }
        let number = officer.share.officer();
        let mut plain = Zeroizing::new(Vec::with_capacity(OfficerAnswer::BYTES * (MAX_BACKUPS + 1)));
        for sealed in self.asked() {
            plain.extend_from_slice(&officer.share.answer(sealed)?.to_bytes());
        }
        let member = self.target.member(self.node);
        let sealed =
            member.and_then(|member| letter::seal(&member.envelope.0, &self.about(number), &plain, rng));
        Ok(Answer {
            request: self.hash(),
            officer: number,
            sealed: sealed.ok_or_else(|| unfit("the new node's envelope key cannot be used"))?,
        })
    }

    /// The keys of each backup, in order, by the answers of a quorum, opened with the restoring node's key.
    ///
    /// # Errors
    /// An answer to another request, a wrong one (its officer is named), or too few.
    pub fn open(&self, answers: &[Answer], key: &EnvelopeKey) -> Result<Vec<Keys>, RecoveryError> {
        let asked = self.asked().count();
        // For each key that is asked for, what each officer answered.
        let mut given: Vec<Vec<(u8, OfficerAnswer)>> = (0..asked).map(|_| Vec::new()).collect();
        for answer in answers {
            let officer = answer.officer;
            if answer.request != self.hash() {
                return Err(unfit(format!(
                    "officer {officer} has answered another request: other backups, another node or another cluster"
                )));
            }
            let plain = letter::open(key, &self.about(officer), &answer.sealed);
            let plain = plain.filter(|plain| plain.len() == asked * OfficerAnswer::BYTES);
            let plain = plain.ok_or_else(|| {
                unfit(format!(
                    "the answer of officer {officer} does not open with this node's key"
                ))
            })?;
            for (given, bytes) in given.iter_mut().zip(plain.chunks(OfficerAnswer::BYTES)) {
                let decoded = OfficerAnswer::from_bytes(bytes);
                let decoded = decoded.ok_or(super::officers::OfficerError::Answer(officer))?;
                given.push((officer, decoded));
            }
        }
        let mut given = given.into_iter();
        let mut open = |sealed: &SealedKey| {
            let answers = given.next().unwrap_or_default();
            self.officers().open(sealed, &answers)
        };
        let keys = self.backups.iter().map(|backup| {
            let state = open(&backup.state_key)?;
            let own = backup.header.node == self.node;
            let shares = own.then(|| open(&backup.shares_key)).transpose()?;
            Ok(Keys { state, shares })
        });
        keys.collect()
    }
}

impl Answer {
    /// The officer's number.
    pub fn officer(&self) -> u8 {
        self.officer
    }

    /// Reads one.
    ///
    /// # Errors
    /// [`RecoveryError::Unfit`].
    pub fn parse(bytes: &[u8]) -> Result<Self, RecoveryError> {
        let wrong = || unfit("this is no recovery officer's answer");
        let file: AnswerFile = serde_json::from_slice(bytes).map_err(|_| wrong())?;
        let sealed = decode_hex(&file.sealed).ok_or_else(wrong)?;
        (file.r#type == ANSWER_TYPE)
            .then_some(Self {
                request: file.request.0,
                officer: file.officer,
                sealed,
            })
            .ok_or_else(wrong)
    }

    /// As it travels.
    pub fn to_json(&self) -> Vec<u8> {
        let file = AnswerFile {
            r#type: ANSWER_TYPE.to_owned(),
            request: Hex32(self.request),
            officer: self.officer,
            sealed: encode_hex(&self.sealed),
        };
        // Texts and numbers only: cannot fail.
        let mut text = serde_json::to_vec_pretty(&file).unwrap_or_default();
        text.push(b'\n');
        text
    }
}
