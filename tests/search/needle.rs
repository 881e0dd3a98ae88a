//! Every form in which 32 secret bytes could lie somewhere, and one search for all of them.

use aho_corasick::AhoCorasick;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// What a form is a form of.
pub(crate) type Name = String;

/// The forms of many values, and the search.
#[derive(Default)]
pub(crate) struct Needles {
    names: Vec<Name>,
    forms: Vec<Vec<u8>>,
}

impl Needles {
    /// A secret: raw, hexadecimal, base64 at every alignment, base58 with and without the prefixes of private keys;
    /// both byte orders.
    pub(crate) fn secret(&mut self, name: &str, value: &[u8; 32]) {
        let mut reversed = *value;
        reversed.reverse();
        for (order, bytes) in [("little-endian", value), ("big-endian", &reversed)] {
            let mut form =
                |what: &str, form: Vec<u8>| self.exactly(&format!("{name}, {order}, {what}"), form);
            form("raw", bytes.to_vec());
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            form("hex", hex.clone().into_bytes());
            form("HEX", hex.to_uppercase().into_bytes());
            for shift in 0..3_usize {
                let padded = [&vec![0; shift][..], bytes].concat();
                // The first and last characters depend on the neighbours.
                let inner = |text: String| text.as_bytes()[(shift * 4).div_ceil(3)..text.len() - 1].to_vec();
                form(
                    &format!("base64 at {shift}"),
                    inner(STANDARD_NO_PAD.encode(&padded)),
                );
                form(
                    &format!("base64url at {shift}"),
                    inner(URL_SAFE_NO_PAD.encode(&padded)),
                );
            }
            for (what, prefix) in [
                ("base58", &[][..]),
                ("Ed25519 multikey", &[0x80, 0x26]),
                ("X25519 multikey", &[0x82, 0x26]),
            ] {
                form(what, bs58::encode([prefix, &bytes[..]].concat()).into_vec());
            }
        }
    }

    /// Bytes as they are.
    pub(crate) fn exactly(&mut self, name: &str, form: Vec<u8>) {
        self.names.push(name.to_owned());
        self.forms.push(form);
    }

    /// A search for everything that was added.
    pub(crate) fn search(self) -> Search {
        Search {
            automaton: AhoCorasick::new(&self.forms).unwrap(),
            names: self.names,
        }
    }
}

/// Finds any form of any value.
pub(crate) struct Search {
    names: Vec<Name>,
    automaton: AhoCorasick,
}

impl Search {
    /// The names of all forms that are in these bytes, each once.
    pub(crate) fn found(&self, bytes: &[u8]) -> Vec<&Name> {
        let mut found: Vec<usize> = Vec::new();
        for hit in self.automaton.find_overlapping_iter(bytes) {
            let which = hit.pattern().as_usize();
            if !found.contains(&which) {
                found.push(which);
            }
        }
        found.into_iter().map(|which| &self.names[which]).collect()
    }
}

#[test]
fn every_form_is_found_wherever_it_stands() {
    let secret: [u8; 32] = std::array::from_fn(|place| (place * 37 + 11) as u8);
    let mut needles = Needles::default();
    needles.secret("secret", &secret);
    let search = needles.search();
    let mut reversed = secret;
    reversed.reverse();
    for bytes in [secret, reversed] {
        for before in 0..4 {
            let around = [&vec![0xa7; before][..], &bytes, b"behind"].concat();
            let hex: String = around.iter().map(|byte| format!("{byte:02x}")).collect();
            for text in [
                around.clone(),
                hex.clone().into_bytes(),
                hex.to_uppercase().into_bytes(),
                STANDARD_NO_PAD.encode(&around).into_bytes(),
                URL_SAFE_NO_PAD.encode(&around).into_bytes(),
            ] {
                assert!(
                    !search.found(&text).is_empty(),
                    "{}",
                    String::from_utf8_lossy(&text)
                );
            }
        }
        assert!(
            !search
                .found(bs58::encode(bytes).into_string().as_bytes())
                .is_empty()
        );
    }
    assert!(search.found(&[0x55; 10_000]).is_empty());
}
