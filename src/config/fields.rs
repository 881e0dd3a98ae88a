//! The value types of the configuration: each parses one kind of text strictly and prints it back the same.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// 32 bytes, written as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hex32(pub [u8; 32]);

/// A text that is not what its key wants.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FieldError {
    /// Not 64 hexadecimal digits.
    #[error("64 hexadecimal digits are needed")]
    Hex32,
    /// Not `https://host[:port]`.
    #[error("an URL of the form https://host or https://host:port is needed, with nothing after it")]
    PublicUrl,
    /// Not a did:key of an Ed25519 key.
    #[error("{0:?} is not a did:key of an Ed25519 key (did:key:z6Mk…)")]
    Did(String),
    /// Neither the word nor a list.
    #[error("meter_admins is a list of did:key identities, or the word \"anyone\"")]
    MeterAdmins,
}

/// Decodes an even number of hexadecimal digits, either case.
pub fn decode_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|value| u8::try_from(value).ok())
    };
    digits
        .chunks_exact(2)
        .map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?))
        .collect()
}

/// Lower-case hexadecimal.
pub fn encode_hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

impl FromStr for Hex32 {
    type Err = FieldError;

    fn from_str(text: &str) -> Result<Self, FieldError> {
        let bytes = decode_hex(text).ok_or(FieldError::Hex32)?;
        Ok(Self(bytes.try_into().map_err(|_| FieldError::Hex32)?))
    }
}

impl fmt::Display for Hex32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&encode_hex(&self.0))
    }
}

impl fmt::Debug for Hex32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<'de> Deserialize<'de> for Hex32 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }
}

impl Serialize for Hex32 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The cluster's public URL: scheme https, a host, perhaps a port, nothing else.
///
/// Kept in its canonical form: lower-case host, no port when it is 443, no trailing slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicUrl {
    host: String,
    port: u16,
}

impl PublicUrl {
    /// The host: a DNS name, an IPv4 address, or an IPv6 address in brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The host without the brackets of an IPv6 address: what certificates name.
    pub fn host_name(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }

    /// The port, 443 when the URL has none.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What a client sends as `Host`: `host`, and `:port` unless it is 443.
    pub fn authority(&self) -> String {
        if self.port == 443 {
            self.host.clone()
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for PublicUrl {
    type Err = FieldError;

    fn from_str(text: &str) -> Result<Self, FieldError> {
        let rest = text.strip_prefix("https://").ok_or(FieldError::PublicUrl)?;
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match split_host_port(authority) {
            Some((host, port)) => (host, port),
            None => (authority, 443),
        };
        if port == 0 || !is_host(host) {
            return Err(FieldError::PublicUrl);
        }
        Ok(Self {
            host: host.to_ascii_lowercase(),
            port,
        })
    }
}

impl fmt::Display for PublicUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}", self.authority())
    }
}

impl<'de> Deserialize<'de> for PublicUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }
}

impl Serialize for PublicUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Splits `host:port`; the port is decimal digits only.
pub fn split_host_port(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    if port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some((host, port.parse().ok()?))
}

/// Whether `text` is a DNS name, an IPv4 address, or an IPv6 address in brackets.
fn is_host(text: &str) -> bool {
    if let Some(inner) = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')) {
        return inner.parse::<std::net::Ipv6Addr>().is_ok();
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

/// Whether `text` is `host:port` with a port above zero.
pub fn is_host_port(text: &str) -> bool {
    split_host_port(text).is_some_and(|(host, port)| port > 0 && is_host(host))
}

/// Who may create meters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MeterAdmins {
    /// Everybody with an identity: for development, never a default.
    Anyone,
    /// These did:key identities; an empty list is nobody.
    These(Vec<String>),
}

impl Default for MeterAdmins {
    fn default() -> Self {
        Self::These(Vec::new())
    }
}

impl MeterAdmins {
    /// Whether `did` may create a meter.
    pub fn allows(&self, did: &str) -> bool {
        match self {
            Self::Anyone => true,
            Self::These(list) => list.iter().any(|admin| admin == did),
        }
    }
}

/// Checks that `did` is a did:key of an Ed25519 key (multicodec 0xed, base58btc).
pub fn check_did_key(did: &str) -> Result<(), FieldError> {
    let refused = || FieldError::Did(did.chars().take(120).collect());
    let encoded = did.strip_prefix("did:key:z").ok_or_else(refused)?;
    // 34 bytes are at most 47 digits of base58; the bound keeps a decoder of quadratic cost away from long texts.
    if encoded.len() > 64 {
        return Err(refused());
    }
    let bytes = bs58::decode(encoded).into_vec().map_err(|_| refused())?;
    match bytes.as_slice() {
        [0xed, 0x01, key @ ..] if key.len() == 32 => Ok(()),
        _ => Err(refused()),
    }
}

#[derive(Deserialize, Serialize)]
#[serde(untagged)]
enum MeterAdminsText {
    Word(String),
    List(Vec<String>),
}

impl<'de> Deserialize<'de> for MeterAdmins {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match MeterAdminsText::deserialize(deserializer)
            .map_err(|_| D::Error::custom(FieldError::MeterAdmins))?
        {
            MeterAdminsText::Word(word) if word == "anyone" => Ok(Self::Anyone),
            MeterAdminsText::Word(_) => Err(D::Error::custom(FieldError::MeterAdmins)),
            MeterAdminsText::List(list) => {
                list.iter()
                    .try_for_each(|did| check_did_key(did))
                    .map_err(D::Error::custom)?;
                Ok(Self::These(list))
            }
        }
    }
}

impl Serialize for MeterAdmins {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Anyone => "anyone".serialize(serializer),
            Self::These(list) => list.serialize(serializer),
        }
    }
}

/// Whether identical requests within two seconds are both served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Twins {
    /// Both are served: unmodified clients send the same bytes for the same call within a second.
    #[default]
    Allow,
    /// Every request is single-use.
    None,
}

/// For people or for machines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One line a record, for people.
    #[default]
    Human,
    /// One JSON object a record.
    Json,
}

/// Node numbers as the keys of a TOML table, which are always strings.
pub(super) mod node_keys {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

    pub(in crate::config) fn serialize<S: Serializer>(
        map: &BTreeMap<u64, String>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        map.iter()
            .map(|(node, address)| (node.to_string(), address))
            .collect::<BTreeMap<_, _>>()
            .serialize(serializer)
    }

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<u64, String>, D::Error> {
        let parse = |(node, address): (String, String)| {
            Ok((
                node.parse()
                    .map_err(|_| D::Error::custom(format!("{node:?} is not a node number")))?,
                address,
            ))
        };
        BTreeMap::<String, String>::deserialize(deserializer)?
            .into_iter()
            .map(parse)
            .collect()
    }
}
