//! Delegation proofs: what is signed, and whether it is. Both suites sign SHA-256(proof options) || SHA-256(document)
//! of the canonical forms (contract 3.7; VC Data Integrity EdDSA 1.0, section 3.2).

use sha2::{Digest, Sha256};

use super::canonical;
use super::capability::Delegated;
use super::error::ChainFault;
use super::rdfc::TooSymmetric;

/// The 64 bytes that the proof at `level` signs.
pub(crate) fn verify_data(delegated: &Delegated, level: usize) -> Result<[u8; 64], TooSymmetric> {
    let mut data = [0; 64];
    data[..32].copy_from_slice(&Sha256::digest(canonical::proof_options(delegated, level)?));
    data[32..].copy_from_slice(&Sha256::digest(canonical::document(delegated, level)?));
    Ok(data)
}

/// Verifies every proof of a chain and says how many there were: as many as it has delegations, never none.
pub(crate) fn verify_all(delegated: &Delegated) -> Result<usize, ChainFault> {
    let mut verified = 0;
    for (level, link) in delegated.links().iter().enumerate() {
        let data = verify_data(delegated, level).map_err(|TooSymmetric| ChainFault::Proof)?;
        if !link.delegator.verifies(&data, &link.proof) {
            return Err(ChainFault::Proof);
        }
        verified += 1;
    }
    if verified == 0 || verified != delegated.links().len() {
        return Err(ChainFault::Proof);
    }
    Ok(verified)
}
