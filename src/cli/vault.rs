//! The demo's encrypted document: its content key is wrapped, and what it is found by is blinded, under keys that no node
//! holds. The document itself never leaves the client in the clear.

use crate::cli::output::Failure;
use crate::client::call::KeyParameters;
use crate::client::{Client, Identity};
use rand::RngCore as _;
use rand::rngs::OsRng;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use zeroize::Zeroizing;

const DOCUMENT: &[u8] = b"what nobody else is to read";
/// What the document is found by.
const INDEXED: &[u8] = b"author: alice";

/// Two symmetric keys of a keystore.
pub(super) struct Vault {
    wrapping: String,
    blinding: String,
}

/// A document as a store that is trusted with nothing keeps it.
pub(super) struct Stored {
    index: Vec<u8>,
    wrapped_key: Vec<u8>,
    nonce: [u8; 12],
    text: Vec<u8>,
}

impl Vault {
    /// Has both keys generated.
    pub(super) async fn make(client: &Client, owner: &Identity, keystore: &str) -> Result<Self, Failure> {
        let generate = |key_type: &str| {
            let parameters = KeyParameters {
                key_type: key_type.to_owned(),
                ..KeyParameters::default()
            };
            async move { client.generate_key(owner, keystore, &parameters, None).await }
        };
        Ok(Self {
            wrapping: generate("AesKeyWrappingKey2019").await?.key_id,
            blinding: generate("Sha256HmacKey2019").await?.key_id,
        })
    }

    /// Encrypts the document.
    pub(super) async fn encrypt(&self, client: &Client, owner: &Identity) -> Result<Stored, Failure> {
        let mut key = Zeroizing::new([0; 32]);
        OsRng.fill_bytes(&mut key[..]);
        let mut nonce = [0; 12];
        OsRng.fill_bytes(&mut nonce);
        let mut text = DOCUMENT.to_vec();
        aead(&key[..])?
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut text)
            .map_err(|_| Failure::because("the document cannot be encrypted"))?;
        Ok(Stored {
            index: client.sign(owner, &self.blinding, INDEXED, None).await?,
            wrapped_key: client.wrap_key(owner, &self.wrapping, &key[..], None).await?,
            nonce,
            text,
        })
    }

    /// Finds the document by its blinded index, and reads it.
    pub(super) async fn read(
        &self,
        client: &Client,
        owner: &Identity,
        stored: &Stored,
    ) -> Result<(), Failure> {
        let is_it = (INDEXED, &stored.index[..]);
        if !client.verify(owner, &self.blinding, is_it, None).await? {
            return Err(Failure::because(
                "the blinded index is another through another node",
            ));
        }
        let key = client.unwrap_key(owner, &self.wrapping, &stored.wrapped_key, None);
        let key = key.await?;
        let key = key.ok_or_else(|| Failure::because("the content key cannot be unwrapped"))?;
        let mut text = stored.text.clone();
        let nonce = Nonce::assume_unique_for_key(stored.nonce);
        match aead(&key)?.open_in_place(nonce, Aad::empty(), &mut text) {
            Ok(text) if text == DOCUMENT => Ok(()),
            _ => Err(Failure::because("the document is another after all")),
        }
    }
}

fn aead(key: &[u8]) -> Result<LessSafeKey, Failure> {
    let key = UnboundKey::new(&AES_256_GCM, key);
    let key = key.map_err(|_| Failure::because("a content key of another length"))?;
    Ok(LessSafeKey::new(key))
}
