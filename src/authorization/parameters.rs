//! `name="value",name="value"`: the one grammar that `Authorization` and `Capability-Invocation` share. Letters in
//! names, no white space, no escapes, no empty list. The caller checks which names it knows.

use super::error::Refusal;

/// At most this many parameters.
const MAX_PARAMETERS: usize = 8;

/// Splits a parameter list; 400 for anything else, a repeated name included.
pub(crate) fn parse(text: &str) -> Result<Vec<(&str, &str)>, Refusal> {
    let mut found: Vec<(&str, &str)> = Vec::with_capacity(MAX_PARAMETERS);
    let mut rest = text;
    loop {
        let (name, after) = rest
            .split_once("=\"")
            .ok_or(Refusal::malformed("a parameter is not name=\"value\""))?;
        let (value, after) = after
            .split_once('"')
            .ok_or(Refusal::malformed("a parameter's quote does not end"))?;
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphabetic()) {
            return Err(Refusal::malformed("a parameter's name is not made of letters"));
        }
        if value.contains('\\') {
            return Err(Refusal::malformed("a parameter's value has an escape"));
        }
        if found.iter().any(|(other, _)| *other == name) {
            return Err(Refusal::malformed("a parameter occurs twice"));
        }
        if found.len() == MAX_PARAMETERS {
            return Err(Refusal::malformed("too many parameters"));
        }
        found.push((name, value));
        if after.is_empty() {
            return Ok(found);
        }
        rest = after
            .strip_prefix(',')
            .ok_or(Refusal::malformed("parameters are not separated by a comma"))?;
    }
}

/// A header value as text: 400 for anything but printable ASCII.
pub(crate) fn visible(value: &[u8]) -> Result<&str, Refusal> {
    match std::str::from_utf8(value) {
        Ok(text) if text.bytes().all(|b| (0x20..0x7f).contains(&b)) => Ok(text),
        _ => Err(Refusal::malformed(
            "a signed header has a character outside of printable ASCII",
        )),
    }
}
