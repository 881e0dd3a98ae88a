//! The one public URL of a server: scheme, host and port, and the text that clients sign as `Host`.
//!
//! Ids of keystores and keys are absolute URLs under it; [`Origin::target`] turns one into a request target and
//! refuses those of another server, so that a signature for one server is never sent to another.

use hyper::Uri;
use rustls_pki_types::ServerName;
use thiserror::Error;

/// Longest URL that is taken, in bytes: what servers take as a request target.
const MAX_URL: usize = 2048;

/// Why a URL cannot be used.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum OriginError {
    /// Longer than 2048 bytes.
    #[error("the URL is longer than {MAX_URL} bytes")]
    TooLong,
    /// Not a URL at all.
    #[error("{0:?} is not a URL")]
    Malformed(String),
    /// Anything but `https`: there is no way to speak without TLS.
    #[error("{0:?} is not an https URL")]
    NotHttps(String),
    /// More than scheme, host and port.
    #[error("{0:?} must be only https://HOST[:PORT]: no path, query or user")]
    NotAnOrigin(String),
    /// An id that belongs to another server.
    #[error("{id:?} is not at {origin}")]
    Elsewhere {
        /// The id as given.
        id: String,
        /// The origin that was asked for.
        origin: String,
    },
}

/// `https://HOST[:PORT]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    authority: String,
    host: String,
    port: u16,
}

impl Origin {
    /// Reads `https://HOST[:PORT]`, with or without a slash at its end. The host is lower-cased; a port is kept
    /// as it was written, since servers compare `Host` as text.
    ///
    /// # Errors
    /// [`OriginError`] for anything else.
    pub fn parse(url: &str) -> Result<Self, OriginError> {
        let malformed = || OriginError::Malformed(url.to_owned());
        let uri = parse_https(url)?;
        let parts = uri.authority().ok_or_else(malformed)?;
        let bare = (uri.path() == "/" || uri.path().is_empty()) && uri.query().is_none();
        if !bare || parts.as_str().contains('@') || url.contains('#') {
            return Err(OriginError::NotAnOrigin(url.to_owned()));
        }
        let host = parts.host().to_ascii_lowercase();
        if host.is_empty() || (parts.as_str().len() > parts.host().len() && parts.port().is_none()) {
            return Err(malformed());
        }
        let port = parts.port_u16().unwrap_or(443);
        let authority = match parts.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.clone(),
        };
        let origin = Self {
            authority,
            host,
            port,
        };
        origin.server_name().ok_or_else(malformed)?;
        Ok(origin)
    }

    /// The origin of an id, and nothing of its path.
    ///
    /// # Errors
    /// [`OriginError`] when `id` is not an absolute https URL.
    pub fn of(id: &str) -> Result<Self, OriginError> {
        let uri = parse_https(id)?;
        let authority = uri
            .authority()
            .ok_or_else(|| OriginError::Malformed(id.to_owned()))?;
        Self::parse(&format!("https://{authority}"))
    }

    /// `HOST[:PORT]`: the `Host` header, signed in every request.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Where bytes go unless the caller says otherwise: `HOST:PORT`.
    #[must_use]
    pub fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// The name that the server's certificate must carry. `None` only for hosts that no certificate can name;
    /// [`Origin::parse`] has refused those.
    #[must_use]
    pub fn server_name(&self) -> Option<ServerName<'static>> {
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        ServerName::try_from(host.to_owned()).ok()
    }

    /// The absolute URL of `path`, which starts with a slash.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.authority)
    }

    /// The request target (path and query) of `id`.
    ///
    /// # Errors
    /// [`OriginError::Elsewhere`] when `id` does not lie under this origin; [`OriginError::Malformed`] when its
    /// path is not one.
    pub fn target<'a>(&self, id: &'a str) -> Result<&'a str, OriginError> {
        if id.len() > MAX_URL {
            return Err(OriginError::TooLong);
        }
        let target = id
            .strip_prefix("https://")
            .and_then(|rest| rest.strip_prefix(self.authority.as_str()))
            .filter(|target| target.starts_with('/'))
            .ok_or_else(|| OriginError::Elsewhere {
                id: id.to_owned(),
                origin: self.url(""),
            })?;
        match target.parse::<Uri>() {
            Ok(_) if !target.contains('#') => Ok(target),
            _ => Err(OriginError::Malformed(id.to_owned())),
        }
    }
}

fn parse_https(url: &str) -> Result<Uri, OriginError> {
    if url.len() > MAX_URL {
        return Err(OriginError::TooLong);
    }
    let uri: Uri = url.parse().map_err(|_| OriginError::Malformed(url.to_owned()))?;
    match uri.scheme_str() {
        Some("https") => Ok(uri),
        Some(_) => Err(OriginError::NotHttps(url.to_owned())),
        None => Err(OriginError::Malformed(url.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::{Origin, OriginError};

    #[test]
    fn reads_host_and_port() {
        let origin = Origin::parse("https://Localhost:8443/").unwrap();
        assert_eq!(origin.authority(), "localhost:8443");
        assert_eq!(origin.address(), "localhost:8443");
        assert_eq!(origin.url("/meters"), "https://localhost:8443/meters");
        let origin = Origin::parse("https://kms.example").unwrap();
        assert_eq!(
            (origin.authority(), origin.address().as_str()),
            ("kms.example", "kms.example:443")
        );
        assert_eq!(
            Origin::parse("https://[::1]:8443").unwrap().address(),
            "[::1]:8443"
        );
    }

    #[test]
    fn refuses_what_is_not_an_origin() {
        for url in [
            "http://localhost:8443",
            "localhost:8443",
            "https://",
            "https://a@b:1",
            "https://a:1/kms",
            "https://a:1/?q",
            "https://a:1#f",
            "https://a:99999",
            "https://a:",
            "",
        ] {
            assert!(Origin::parse(url).is_err(), "{url}");
        }
    }

    #[test]
    fn takes_targets_of_its_own_only() {
        let origin = Origin::parse("https://a:1").unwrap();
        assert_eq!(
            origin.target("https://a:1/kms/keystores?controller=did%3Akey"),
            Ok("/kms/keystores?controller=did%3Akey")
        );
        for id in [
            "https://a:12/kms",
            "https://b:1/kms",
            "http://a:1/kms",
            "https://a:1.evil/kms",
            "https://a:1",
        ] {
            assert!(
                matches!(origin.target(id), Err(OriginError::Elsewhere { .. })),
                "{id}"
            );
        }
        assert!(origin.target("https://a:1/kms keystores").is_err());
        assert_eq!(Origin::of("https://a:1/kms/keystores/z1").unwrap(), origin);
    }
}
