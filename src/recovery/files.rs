//! The files of `conclave recovery init`: `recovery.json`, which every node has, and one secret file for each officer.

use std::path::Path;

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize as _, Zeroizing};

use super::RecoveryError;
use super::officers::{OfficerKeys, OfficerShare};
use crate::config::{
    Hex32,
    fields::{decode_hex, encode_hex},
};
use crate::seal::secret_file;

const KEYS_TYPE: &str = "conclave recovery keys";
const SHARE_TYPE: &str = "conclave recovery share";
const MAX_FILE: usize = 16 * 1024;
const INSTRUCTIONS: &str = "You are a recovery officer. Keep this file offline, in two places, and give it to nobody: who \
    has a quorum of such files and a backup of every node has every key. When the cluster is lost you are sent a request \
    file. Ask the others by another way whether it is true. Then run, on a machine of your own: conclave recovery answer \
    --share THIS_FILE REQUEST_FILE. It shows what you answer for and writes an answer that only the machine that restores \
    can read; send it back.";

/// The officers of one cluster, as everybody may know them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// The cluster.
    pub cluster: [u8; 32],
    /// How many officers there are.
    pub officers: u8,
    /// Their keys.
    pub keys: OfficerKeys,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct KeysFile {
    r#type: String,
    cluster: Hex32,
    officers: u8,
    quorum: u8,
    keys: String,
    fingerprint: Hex32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ShareFile {
    r#type: String,
    #[serde(rename = "instructions")]
    _instructions: String,
    cluster: Hex32,
    officer: u8,
    quorum: u8,
    keys: String,
    secret: String,
}

impl Drop for ShareFile {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

fn malformed(path: &Path, expected: &'static str) -> RecoveryError {
    RecoveryError::Malformed {
        path: path.to_owned(),
        expected,
    }
}

impl Recovery {
    /// Reads `recovery.json`.
    ///
    /// # Errors
    /// [`RecoveryError`].
    pub fn read(path: &Path) -> Result<Self, RecoveryError> {
        let wrong = || malformed(path, "a file of recovery officers' public keys");
        let bytes = secret_file::read_public(path, MAX_FILE)?;
        let file: KeysFile = serde_json::from_slice(&bytes).map_err(|_| wrong())?;
        let keys = decode_hex(&file.keys).ok_or_else(wrong)?;
        let keys = OfficerKeys::from_bytes(&keys)?;
        let fits = file.r#type == KEYS_TYPE
            && keys.quorum() == usize::from(file.quorum)
            && file.quorum <= file.officers
            && keys.fingerprint() == file.fingerprint.0;
        let recovery = Self {
            cluster: file.cluster.0,
            officers: file.officers,
            keys,
        };
        fits.then_some(recovery).ok_or_else(wrong)
    }

    /// Writes it to a new file that everybody may read.
    ///
    /// # Errors
    /// What the system says.
    pub fn create(&self, path: &Path) -> Result<(), RecoveryError> {
        let file = KeysFile {
            r#type: KEYS_TYPE.to_owned(),
            cluster: Hex32(self.cluster),
            officers: self.officers,
            quorum: self.quorum(),
            keys: encode_hex(&self.keys.to_bytes()),
            fingerprint: Hex32(self.keys.fingerprint()),
        };
        // Texts and numbers only: cannot fail.
        let mut text = serde_json::to_vec_pretty(&file).unwrap_or_default();
        text.push(b'\n');
        Ok(secret_file::create_public(path, &text)?)
    }

    /// How many officers open a backup.
    pub fn quorum(&self) -> u8 {
        u8::try_from(self.keys.quorum()).unwrap_or(u8::MAX)
    }

    /// Writes one officer's secret file, mode 0600.
    ///
    /// # Errors
    /// What the system says.
    pub fn create_share(&self, share: &OfficerShare, path: &Path) -> Result<(), RecoveryError> {
        let secret = Zeroizing::new(encode_hex(&share.to_bytes()));
        let text = Zeroizing::new(format!(
            "{{\n  \"type\": \"{SHARE_TYPE}\",\n  \"instructions\": \"{INSTRUCTIONS}\",\n  \"cluster\": \"{}\",\n  \
             \"officer\": {},\n  \"quorum\": {},\n  \"keys\": \"{}\",\n  \"secret\": \"{}\"\n}}\n",
            Hex32(self.cluster),
            share.officer(),
            self.quorum(),
            encode_hex(&self.keys.to_bytes()),
            *secret
        ));
        Ok(secret_file::create(path, text.as_bytes())?)
    }
}

/// An officer's file, opened.
pub struct Officer {
    /// The cluster that it can restore.
    pub cluster: [u8; 32],
    /// All officers' keys.
    pub keys: OfficerKeys,
    /// The officer's own share.
    pub share: OfficerShare,
}

impl Officer {
    /// Reads an officer's file (mode 0600).
    ///
    /// # Errors
    /// [`RecoveryError`].
    pub fn read(path: &Path) -> Result<Self, RecoveryError> {
        let wrong = || malformed(path, "a recovery officer's file");
        let bytes = secret_file::read(path, MAX_FILE)?;
        let file: ShareFile = serde_json::from_slice(&bytes).map_err(|_| wrong())?;
        let keys = OfficerKeys::from_bytes(&decode_hex(&file.keys).ok_or_else(wrong)?)?;
        if file.r#type != SHARE_TYPE || keys.quorum() != usize::from(file.quorum) {
            return Err(wrong());
        }
        let secret = Zeroizing::new(decode_hex(&file.secret).ok_or_else(wrong)?);
        let share = OfficerShare::from_bytes(file.officer, &secret, &keys)?;
        Ok(Self {
            cluster: file.cluster.0,
            keys,
            share,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rand::rngs::OsRng;

    use super::*;
    use crate::recovery::officers::deal;

    #[test]
    fn files_are_read_back_and_a_share_under_other_keys_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let (keys, shares) = deal(3, 2, &mut OsRng).unwrap();
        let recovery = Recovery {
            cluster: [7; 32],
            officers: 3,
            keys,
        };
        recovery.create(&path("recovery.json")).unwrap();
        assert_eq!(Recovery::read(&path("recovery.json")).unwrap(), recovery);
        recovery.create_share(&shares[1], &path("two")).unwrap();
        let officer = Officer::read(&path("two")).unwrap();
        assert_eq!((officer.cluster, officer.share.officer()), ([7; 32], 2));
        assert_eq!(officer.keys, recovery.keys);
        let text = fs::read_to_string(path("two")).unwrap();
        let other = encode_hex(&deal(3, 2, &mut OsRng).unwrap().0.to_bytes());
        let changes = [
            text.replace("\"officer\": 2", "\"officer\": 1"),
            text.replace(&encode_hex(&recovery.keys.to_bytes()), &other),
            text.replace(SHARE_TYPE, KEYS_TYPE),
            text.replace("\"quorum\": 2", "\"quorum\": 3"),
            text.replace('}', ",\"more\": 1}"),
        ];
        for (number, changed) in changes.iter().enumerate() {
            assert_ne!(*changed, text);
            let path = path(&format!("changed-{number}"));
            secret_file::create(&path, changed.as_bytes()).unwrap();
            assert!(Officer::read(&path).is_err(), "change {number}");
        }
    }
}
