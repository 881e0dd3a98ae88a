//! What the format of the release after changes, for the test of upgrades: everything that is encoded in it ends with eight
//! bytes more, which are checked. A build of the format before reads none of it.

use sha2::{Digest, Sha256};

use super::{Format, NEWEST};

const CHECK: usize = 8;

fn has_check(format: Option<&Format>) -> bool {
    format.is_some_and(|format| *format >= NEWEST)
}

fn check(encoded: &[u8]) -> [u8; CHECK] {
    let hash: [u8; 32] = Sha256::digest(encoded).into();
    std::array::from_fn(|at| hash[at])
}

pub(super) fn close(mut encoded: Vec<u8>) -> Vec<u8> {
    if has_check(encoded.first()) {
        let check = check(&encoded);
        encoded.extend_from_slice(&check);
    }
    encoded
}

pub(super) fn open(encoded: &[u8]) -> Option<&[u8]> {
    if !has_check(encoded.first()) {
        return Some(encoded);
    }
    let (encoded, found) = encoded.split_last_chunk::<CHECK>()?;
    (*found == check(encoded)).then_some(encoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_newest_format_adds_is_checked_and_older_ones_have_nothing_of_it() {
        let newest = close(vec![NEWEST, 7]);
        assert_eq!(newest.len(), 2 + CHECK);
        assert_eq!(open(&newest), Some(&[NEWEST, 7][..]));
        for at in 1..newest.len() {
            let mut other = newest.clone();
            other[at] ^= 1;
            assert_eq!(open(&other), None, "byte {at}");
        }
        assert_eq!(close(vec![NEWEST - 1, 7]), [NEWEST - 1, 7]);
        assert_eq!(open(&[NEWEST - 1, 7]), Some(&[NEWEST - 1, 7][..]));
    }
}
