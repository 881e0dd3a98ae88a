//! How a receipt stands in a header, in one spelling only:
//!
//! ```text
//! receipt = "v1 " list 1*5( " " voucher )
//! voucher = node ":" time ":" signature        by rising node, each once
//! list, node, time = decimal, no zeros before it; time in ms since 1970
//! signature = 86 characters of base64url without padding
//! ```
//!
//! Under 700 bytes.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::{Receipt, Voucher};
use crate::membership::MOST;

/// The longest receipt that is read, bytes.
pub const MAX_RECEIPT: usize = 1_024;
/// Characters of a signature.
const SIGNATURE: usize = 86;

/// Why a text is no receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// More than [`MAX_RECEIPT`] bytes.
    #[error("it is longer than {MAX_RECEIPT} bytes")]
    TooLong,
    /// A version that this build does not know.
    #[error("it is not of a version that is known here")]
    Version,
    /// Not written as above.
    #[error("it is not written as it must be")]
    Grammar,
    /// More vouchers than a group has members, or none.
    #[error("it has no signature, or more than a group has members")]
    Count,
    /// Not by rising node.
    #[error("its signatures do not stand by rising number of their nodes")]
    Order,
}

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v1 {}", self.members)?;
        for voucher in &self.vouchers {
            let signature = URL_SAFE_NO_PAD.encode(voucher.signature);
            write!(f, " {}:{}:{signature}", voucher.node, voucher.time)?;
        }
        Ok(())
    }
}

impl Receipt {
    /// Reads what [`Receipt`] writes, and nothing else.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        if text.len() > MAX_RECEIPT {
            return Err(Malformed::TooLong);
        }
        let rest = text.strip_prefix("v1 ").ok_or(Malformed::Version)?;
        let mut parts = rest.split(' ');
        let members = number(parts.next().unwrap_or_default())?;
        let mut vouchers: Vec<Voucher> = Vec::with_capacity(MOST);
        for part in parts {
            if vouchers.len() == MOST {
                return Err(Malformed::Count);
            }
            let voucher = voucher(part)?;
            if vouchers.last().is_some_and(|last| last.node >= voucher.node) {
                return Err(Malformed::Order);
            }
            vouchers.push(voucher);
        }
        match vouchers.is_empty() {
            true => Err(Malformed::Count),
            false => Ok(Self { members, vouchers }),
        }
    }
}

fn voucher(text: &str) -> Result<Voucher, Malformed> {
    let mut fields = text.splitn(3, ':');
    let mut field = || fields.next().ok_or(Malformed::Grammar);
    let (node, time, signature) = (number(field()?)?, number(field()?)?, field()?);
    if signature.len() != SIGNATURE {
        return Err(Malformed::Grammar);
    }
    // Strict: bits after the end must be zero, so that there is one spelling.
    let signature = URL_SAFE_NO_PAD.decode(signature);
    let signature = signature.ok().and_then(|bytes| bytes.try_into().ok());
    Ok(Voucher {
        node,
        time,
        signature: signature.ok_or(Malformed::Grammar)?,
    })
}

/// A number in the one spelling that it has.
fn number(text: &str) -> Result<u64, Malformed> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    let number = text.parse().ok().filter(|_| plain);
    number.ok_or(Malformed::Grammar)
}
