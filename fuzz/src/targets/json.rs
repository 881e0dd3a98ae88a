//! Strict JSON: what is taken is what any reader takes it for; what is refused is ambiguous or no JSON.

use std::fmt;

use conclave::authorization::json::{MAX_DEPTH, parse};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::{Seed, Target, seed};
use crate::support::vectors;

pub(super) const TARGET: Target = Target {
    name: "json",
    longest: 4_096,
    mutations: 20_000,
    run,
    seeds,
};

fn run(bytes: &[u8]) -> bool {
    let loose = serde_json::from_slice::<Loose>(bytes).ok();
    let is_clear = loose.as_ref().is_some_and(|Loose { value, repeats }| {
        !repeats && depth(value) <= MAX_DEPTH && has_only_safe_integers(value)
    });
    let strict = parse(bytes).ok();
    assert_eq!(
        strict.is_some(),
        is_clear,
        "what is clear is taken and nothing else"
    );
    let (Some(strict), Some(loose)) = (strict, loose) else {
        return false;
    };
    assert_eq!(strict, loose.value, "both readers see the same");
    let written = serde_json::to_vec(&strict).expect("a value can be written");
    assert_eq!(parse(&written).ok(), Some(strict), "what is written is read");
    true
}

/// What a reader that minds nothing takes a text for. (serde_json's own reader of a [`Value`] gives members of one name,
/// with which it marks raw text, a meaning.)
struct Loose {
    value: Value,
    /// Whether an object anywhere in it has a member twice.
    repeats: bool,
}

impl<T: Into<Value>> From<T> for Loose {
    fn from(value: T) -> Self {
        let (value, repeats) = (value.into(), false);
        Self { value, repeats }
    }
}

impl<'de> Deserialize<'de> for Loose {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Look)
    }
}

struct Look;

impl<'de> Visitor<'de> for Look {
    type Value = Loose;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Loose, E> {
        Ok(Value::Null.into())
    }

    fn visit_bool<E>(self, value: bool) -> Result<Loose, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Loose, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Loose, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Loose, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Loose, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Loose, A::Error> {
        let (mut values, mut repeats) = (Vec::new(), false);
        while let Some(item) = items.next_element::<Loose>()? {
            repeats |= item.repeats;
            values.push(item.value);
        }
        let value = values.into();
        Ok(Loose { value, repeats })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Loose, A::Error> {
        let (mut values, mut repeats) = (Map::new(), false);
        while let Some((name, member)) = members.next_entry::<String, Loose>()? {
            repeats |= member.repeats || values.insert(name, member.value).is_some();
        }
        let value = values.into();
        Ok(Loose { value, repeats })
    }
}

fn depth(value: &Value) -> usize {
    let inside = match value {
        Value::Array(items) => items.iter().map(depth).max(),
        Value::Object(members) => members.values().map(depth).max(),
        _ => return 0,
    };
    1 + inside.unwrap_or(0)
}

fn has_only_safe_integers(value: &Value) -> bool {
    match value {
        Value::Number(number) => {
            let integer = number.as_i64();
            integer.is_some_and(|integer| integer.unsigned_abs() < 1 << 53)
        }
        Value::Array(items) => items.iter().all(has_only_safe_integers),
        Value::Object(members) => members.values().all(has_only_safe_integers),
        _ => true,
    }
}

fn seeds() -> Vec<Seed> {
    let mut seeds = vec![
        seed(
            "escapes",
            r#"["é😀\n\"\\\/", "\ud83d\ude00\u00e9", "\ud800"]"#.as_bytes(),
        ),
        seed(
            "numbers",
            "[0,-1,9007199254740991,-9007199254740992,1.0,1e2,-0,01,123456789012345678901]",
        ),
        seed(
            "integers",
            "[0,-1,9007199254740991,-9007199254740991,{\"a\":null,\"b\":true}]",
        ),
        seed("twice", "{\"a\":1,\"\\u0061\":2}"),
        seed(
            "deepest",
            format!("{}{}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH)),
        ),
        seed(
            "too-deep",
            format!("{}{}", "[".repeat(MAX_DEPTH + 1), "]".repeat(MAX_DEPTH + 1)),
        ),
    ];
    let bodies = vectors::bodies().into_iter();
    seeds.extend(bodies.step_by(20).filter(|(_, body)| body.len() < 1_024));
    seeds
}
