//! Which resource a request is for: method and raw target, nothing decoded that a signature covers.

use crate::identifier::LocalId;
use crate::overload::Class;

/// A path segment that should name something of ours. `id` is `None` when no identifier has that spelling: such a
/// thing cannot exist, and is answered like one that does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The segment as sent.
    pub text: String,
    /// The identifier that it spells.
    pub id: Option<LocalId>,
}

/// The resources of the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// `POST /meters`
    CreateMeter,
    /// `GET /meters/:id`
    GetMeter(Named),
    /// `POST /kms/keystores`
    CreateKeystore,
    /// `GET /kms/keystores?controller=…`; the query as sent
    ListKeystores(String),
    /// `GET /kms/keystores/:ks`
    GetKeystore(Named),
    /// `POST /kms/keystores/:ks`
    UpdateKeystore(Named),
    /// `POST /kms/keystores/:ks/keys`
    GenerateKey(Named),
    /// `GET /kms/keystores/:ks/keys/:key`
    GetKey(Named, Named),
    /// `POST /kms/keystores/:ks/keys/:key`
    UseKey(Named, Named),
    /// `POST /kms/keystores/:ks/operations`: several uses of its keys in one request, an extension
    Batch(Named),
    /// `POST /kms/keystores/:ks/zcaps/revocations/:id`
    Revoke(Named),
}

impl Named {
    fn new(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            id: LocalId::parse(text),
        }
    }
}

impl Route {
    /// What is given up first under load, as far as a path tells: uses of symmetric keys look like any others.
    pub fn class(&self) -> Class {
        match self {
            Self::GetMeter(_)
            | Self::ListKeystores(_)
            | Self::GetKeystore(_)
            | Self::GetKey(..)
            | Self::UseKey(..)
            | Self::Batch(_) => Class::Signatures,
            Self::CreateMeter
            | Self::CreateKeystore
            | Self::UpdateKeystore(_)
            | Self::GenerateKey(_)
            | Self::Revoke(_) => Class::Changes,
        }
    }

    /// Whether it only reads.
    pub fn reads(&self) -> bool {
        matches!(
            self,
            Self::GetMeter(_) | Self::ListKeystores(_) | Self::GetKeystore(_) | Self::GetKey(..)
        )
    }

    /// The route of `method` and `target` (path and query as sent); `None` if there is none.
    pub fn parse(method: &str, target: &str) -> Option<Self> {
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        let segments: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
        if segments.iter().any(|segment| segment.is_empty()) {
            return None;
        }
        if let ("GET", ["kms", "keystores"], Some(query)) = (method, &segments[..], query) {
            return Some(Self::ListKeystores(query.to_owned()));
        }
        if query.is_some() {
            return None;
        }
        match (method, &segments[..]) {
            ("POST", ["meters"]) => Some(Self::CreateMeter),
            ("GET", ["meters", id]) => Some(Self::GetMeter(Named::new(id))),
            ("POST", ["kms", "keystores"]) => Some(Self::CreateKeystore),
            ("GET", ["kms", "keystores"]) => Some(Self::ListKeystores(String::new())),
            ("GET", ["kms", "keystores", ks]) => Some(Self::GetKeystore(Named::new(ks))),
            ("POST", ["kms", "keystores", ks]) => Some(Self::UpdateKeystore(Named::new(ks))),
            ("POST", ["kms", "keystores", ks, "keys"]) => Some(Self::GenerateKey(Named::new(ks))),
            ("GET" | "HEAD", ["kms", "keystores", ks, "keys", key]) => {
                Some(Self::GetKey(Named::new(ks), Named::new(key)))
            }
            ("POST", ["kms", "keystores", ks, "keys", key]) => {
                Some(Self::UseKey(Named::new(ks), Named::new(key)))
            }
            ("POST", ["kms", "keystores", ks, "operations"]) => Some(Self::Batch(Named::new(ks))),
            ("POST", ["kms", "keystores", ks, "zcaps", "revocations", _]) => {
                Some(Self::Revoke(Named::new(ks)))
            }
            _ => None,
        }
    }

    /// The keystore that the path names.
    pub fn keystore(&self) -> Option<&Named> {
        match self {
            Self::GetKeystore(ks)
            | Self::UpdateKeystore(ks)
            | Self::GenerateKey(ks)
            | Self::GetKey(ks, _)
            | Self::UseKey(ks, _)
            | Self::Batch(ks)
            | Self::Revoke(ks) => Some(ks),
            _ => None,
        }
    }

    /// Whether the same bytes may come twice: reads change nothing and tell nothing new.
    pub fn is_read(&self) -> bool {
        matches!(
            self,
            Self::GetMeter(_) | Self::ListKeystores(_) | Self::GetKeystore(_) | Self::GetKey(..)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_exact() {
        let ks = "z1A6zRzwpJTtjzWqchPunwkcH";
        let parse = |method: &str, target: &str| Route::parse(method, target);
        assert!(
            matches!(parse("GET", &format!("/kms/keystores/{ks}")), Some(Route::GetKeystore(n)) if n.id.is_some())
        );
        assert!(
            matches!(parse("HEAD", &format!("/kms/keystores/{ks}/keys/x")), Some(Route::GetKey(_, n)) if n.id.is_none())
        );
        for (method, target) in [
            ("GET", "/kms/keystores/"),
            ("GET", "//kms/keystores"),
            ("PUT", "/kms/keystores/z1"),
            ("GET", "/kms/keystores/z1/keys"),
            ("POST", "/kms/keystores/z1?x=1"),
            ("GET", "/kms/./keystores"),
            ("GET", "https://other/kms/keystores"),
        ] {
            assert_eq!(parse(method, target), None, "{method} {target}");
        }
    }
}
