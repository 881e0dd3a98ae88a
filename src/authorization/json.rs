//! JSON, strictly: UTF-8 without BOM, one value, bounded depth, no member twice, no lone surrogate, and of numbers
//! only integers that every reader takes for the same value (within 2^53 - 1 of zero). What two parsers could read
//! differently is refused.

use std::fmt;

use serde::de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Containers inside containers. A chain of ten capabilities has 28.
pub const MAX_DEPTH: usize = 64;

const MAX_SAFE_INTEGER: u64 = (1 << 53) - 1;

/// Not strict JSON; the text says where and why, without quoting the input's values.
#[derive(Debug, thiserror::Error)]
#[error("not strict JSON")]
pub struct JsonError(#[source] serde_json::Error);

/// Reads one value.
pub fn parse(bytes: &[u8]) -> Result<Value, JsonError> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = Strict { depth: MAX_DEPTH }
        .deserialize(&mut reader)
        .map_err(JsonError)?;
    reader.end().map_err(JsonError)?;
    Ok(value)
}

#[derive(Clone, Copy)]
struct Strict {
    /// How many more containers may open.
    depth: usize,
}

impl Strict {
    fn inside<E: de::Error>(self) -> Result<Self, E> {
        match self.depth.checked_sub(1) {
            Some(depth) => Ok(Self { depth }),
            None => Err(E::custom("nested too deeply")),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value with integers only")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Value, E> {
        if value.unsigned_abs() > MAX_SAFE_INTEGER {
            return Err(E::custom("number out of range"));
        }
        Ok(Value::from(value))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Value, E> {
        if value > MAX_SAFE_INTEGER {
            return Err(E::custom("number out of range"));
        }
        Ok(Value::from(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let inside = self.inside()?;
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(inside)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let inside = self.inside()?;
        let mut members = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            let value = map.next_value_seed(inside)?;
            if members.insert(name, value).is_some() {
                return Err(de::Error::custom("member occurs twice"));
            }
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_what_every_reader_takes_alike() {
        for text in [
            "{}",
            " [1,-2,true,null,\"\\u00e9\\ud83d\\ude00\"] ",
            "9007199254740991",
            "-9007199254740991",
        ] {
            assert_eq!(
                parse(text.as_bytes()).unwrap(),
                serde_json::from_str::<Value>(text).unwrap(),
                "{text}"
            );
        }
        let deep = format!("{}{}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH));
        assert!(parse(deep.as_bytes()).is_ok());
    }

    #[test]
    fn refuses_what_is_ambiguous() {
        let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        let objects = format!("{}1{}", "{\"a\":".repeat(1_000), "}".repeat(1_000));
        let texts = [
            "{\"a\":1,\"a\":1}".into(),
            "{\"a\":{\"b\":1,\"\\u0062\":2}}".into(),
            "\"\\ud800\"".into(),
            "{\"\\udc00\":1}".into(),
            "\u{feff}{}".into(),
            "NaN".into(),
            "1e2".into(),
            "1.0".into(),
            "-0".into(),
            "01".into(),
            "9007199254740992".into(),
            "-9007199254740992".into(),
            "123456789012345678901234567890".into(),
            "[1,]".into(),
            "{\"a\":1,}".into(),
            "{} {}".into(),
            "\"a\u{1}\"".into(),
            "'a'".into(),
            "".into(),
            deep(MAX_DEPTH + 1),
            deep(129),
            deep(1_000),
            objects,
        ];
        for text in texts {
            assert!(parse(text.as_bytes()).is_err(), "{}", &text[..text.len().min(80)]);
        }
        assert!(parse(b"\"\xff\"").is_err());
        assert!(parse(b"\"\xed\xa0\x80\"").is_err());
    }
}
