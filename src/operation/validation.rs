//! Validation errors in the shape and wording that WebKMS clients know (ajv's).

use std::net::IpAddr;

use serde_json::{Value, json};

use crate::problem::Problem;

/// The pattern of one CIDR block, as the wire contract has it: shown in errors, since clients' tests read it.
const CIDR_PATTERN: &str = include_str!("cidr_pattern.txt");
/// Most errors that one answer shows. A body has room for thousands, and who sent it need not be authorized for anything.
const MAX_ERRORS: usize = 16;
/// Longest body or value, in bytes of JSON, that an error shows; a longer one is shown as null.
const MAX_SHOWN: usize = 4 * 1024;

/// Collects what is wrong with one body.
pub struct Validation<'a> {
    validator: &'static str,
    instance: &'a Value,
    errors: Vec<Value>,
}

impl<'a> Validation<'a> {
    /// For the validator of this name and the body that it looks at.
    pub fn new(validator: &'static str, instance: &'a Value) -> Self {
        Self {
            validator,
            instance,
            errors: Vec::new(),
        }
    }

    /// Records an error at `path` (ajv's, "" for the body itself), unless there are as many as an answer shows.
    pub fn error(
        &mut self,
        path: &str,
        rule: &str,
        message: impl Into<String>,
        params: Value,
        value: &Value,
    ) {
        if self.errors.len() == MAX_ERRORS {
            return;
        }
        self.errors.push(json!({
            "name": "ValidationError",
            "message": message.into(),
            "details": {
                "instance": shown(self.instance),
                "params": params,
                "path": path,
                "public": true,
                "schemaPath": rule,
                "schema": { "description": "", "title": self.validator },
                "value": shown(value),
            },
            "cause": null,
        }));
    }

    /// A member that has to be there.
    pub fn required(&mut self, member: &str) -> Option<&'a Value> {
        let value = self.instance.get(member);
        if value.is_none() {
            let message = format!("should have required property '{member}'");
            self.error(
                "",
                "#/required",
                message,
                json!({ "missingProperty": member }),
                self.instance,
            );
        }
        value
    }

    /// Refuses members outside `allowed`.
    pub fn only(&mut self, allowed: &[&str]) {
        let Some(object) = self.instance.as_object() else {
            return self.error(
                "",
                "#/type",
                "should be object",
                json!({ "type": "object" }),
                self.instance,
            );
        };
        for member in object.keys().filter(|member| !allowed.contains(&member.as_str())) {
            let params = json!({ "additionalProperty": member });
            let rule = "#/additionalProperties";
            self.error(
                "",
                rule,
                "should NOT have additional properties",
                params,
                self.instance,
            );
        }
    }

    /// Records that `value` at `path` is not of type `expected`.
    pub fn wrong_type(&mut self, path: &str, expected: &str, value: &Value) {
        let rule = format!("#/properties/{}/type", path.trim_start_matches('.'));
        self.error(
            path,
            &rule,
            format!("should be {expected}"),
            json!({ "type": expected }),
            value,
        );
    }

    /// The `ipAllowList` member: none, or one or more CIDR blocks.
    pub fn ip_allow_list(&mut self) -> Option<Vec<String>> {
        let value = self.instance.get("ipAllowList")?;
        let Some(items) = value.as_array() else {
            self.wrong_type(".ipAllowList", "array", value);
            return None;
        };
        if items.is_empty() {
            let message = "should NOT have fewer than 1 items";
            let rule = "#/properties/ipAllowList/minItems";
            self.error(".ipAllowList", rule, message, json!({ "limit": 1 }), value);
        }
        if items.len() > 256 {
            let message = "should NOT have more than 256 items";
            let rule = "#/properties/ipAllowList/maxItems";
            self.error(".ipAllowList", rule, message, json!({ "limit": 256 }), value);
            return None;
        }
        let mut blocks = Vec::new();
        for (index, item) in items.iter().enumerate() {
            match item.as_str().filter(|text| is_cidr(text)) {
                Some(block) => blocks.push(block.to_owned()),
                None => {
                    let path = format!(".ipAllowList[{index}]");
                    let rule = "#/properties/ipAllowList/items/pattern";
                    let message = format!("should match pattern \"{CIDR_PATTERN}\"");
                    self.error(&path, rule, message, json!({ "pattern": CIDR_PATTERN }), item);
                }
            }
        }
        Some(blocks)
    }

    /// The 400, if anything was wrong.
    pub fn finish(self) -> Result<(), Problem> {
        if self.errors.is_empty() {
            return Ok(());
        }
        let message = format!(
            "A validation error occurred in the '{}' validator.",
            self.validator
        );
        let problem = Problem::new(400, "ValidationError", message);
        Err(problem.with_details(json!({ "errors": self.errors })))
    }
}

/// What an error shows of a value.
fn shown(value: &Value) -> Value {
    match value.to_string().len() <= MAX_SHOWN {
        true => value.clone(),
        false => Value::Null,
    }
}

/// A CIDR block with its prefix length, which must not be 0 (it would allow everybody), nor hide IPv4 in IPv6.
/// The address is parsed by the standard library: ipnet takes leading zeros, which others read as octal.
fn is_cidr(text: &str) -> bool {
    let Some((address, prefix)) = text.split_once('/') else {
        return false;
    };
    let plain =
        !prefix.starts_with('0') && prefix.len() <= 3 && prefix.bytes().all(|byte| byte.is_ascii_digit());
    let (Ok(address), true, Ok(prefix)) = (address.parse::<IpAddr>(), plain, prefix.parse::<u8>()) else {
        return false;
    };
    match address {
        IpAddr::V4(_) => prefix <= 32,
        IpAddr::V6(address) => prefix <= 128 && address.to_ipv4_mapped().is_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_that_allow_everybody_or_hide_an_address_are_refused() {
        for bad in [
            "0.0.0.0/0",
            "::/0",
            "::ffff:10.0.0.1/120",
            "10.0.0.1",
            "10.0.0.1/33",
            "nope",
            "01.2.3.4/8",
        ] {
            assert!(!is_cidr(bad), "{bad}");
        }
        for good in ["127.0.0.1/32", "10.0.0.0/8", "2001:db8::/32"] {
            assert!(is_cidr(good), "{good}");
        }
    }

    /// Found by the fuzz target `operation_body`: every unknown member was told with the whole body, so that 100 kB of
    /// them became gigabytes, before anybody had asked who sent them.
    #[test]
    fn an_answer_is_bounded_whatever_is_wrong() {
        let members = (0..12_000).map(|number| (format!("{number:x}"), Value::Null));
        let body = Value::Object(members.collect());
        let mut validation = Validation::new("postKeystoreBody", &body);
        validation.only(&["controller"]);
        validation.required("controller");
        validation.wrong_type(".controller", "string", &body);
        let answer = validation.finish().unwrap_err().body();
        assert_eq!(answer["details"]["errors"].as_array().unwrap().len(), MAX_ERRORS);
        assert!(
            answer.to_string().len() < 16 * 1024,
            "{} bytes",
            answer.to_string().len()
        );
        let small = json!({ "a": 1, "b": 2 });
        let mut validation = Validation::new("postKeystoreBody", &small);
        validation.only(&[]);
        let answer = validation.finish().unwrap_err().body();
        assert_eq!(answer["details"]["errors"][1]["details"]["instance"], small);
    }

    #[test]
    fn wording_is_the_one_that_clients_read() {
        let body = json!({ "ipAllowList": ["nope"] });
        let mut validation = Validation::new("postKeystoreBody", &body);
        validation.ip_allow_list();
        let problem = validation.finish().unwrap_err();
        let body = problem.body();
        assert_eq!(
            body["message"],
            "A validation error occurred in the 'postKeystoreBody' validator."
        );
        let error = &body["details"]["errors"][0];
        assert!(
            error["message"]
                .as_str()
                .unwrap()
                .starts_with("should match pattern")
        );
        assert_eq!(error["details"]["path"], ".ipAllowList[0]");
    }
}
