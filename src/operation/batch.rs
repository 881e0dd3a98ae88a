//! A batch: several uses of the keys of one keystore in one signed request (docs/batch.md). Each item is made into the
//! request that it would be if it came alone: the same signer and capability, its own action, target and body.

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::route::Route;
use crate::authorization::Authenticated;
use crate::authorization::error::Refusal;
use crate::problem::Problem;

/// Most items of a batch.
pub const MAX_ITEMS: usize = 64;
/// What the invocation of a batch names as its action.
pub const ACTION: &str = "batch";

/// One item, as if it came alone.
pub struct Item {
    /// The request that it is.
    pub authenticated: Authenticated,
    /// Its route.
    pub route: Route,
}

/// The items of an authenticated batch for the keystore at `keystore_url`, in order; an item that is no use of a key of
/// this keystore is the problem that it has.
///
/// # Errors
/// The whole is no batch: no array, none or too many items, another action.
pub fn items(
    request: &Authenticated,
    public_url: &str,
    keystore_url: &str,
) -> Result<Vec<Result<Item, Problem>>, Problem> {
    if request.action != ACTION {
        return Err(Refusal::ActionMismatch {
            actual: request.action.clone(),
            expected: ACTION.to_owned(),
        }
        .into());
    }
    let listed = request.body_json.as_ref().and_then(Value::as_array);
    let listed = listed.filter(|items| (1..=MAX_ITEMS).contains(&items.len()));
    let Some(listed) = listed else {
        let message = format!("The body must be an array of 1 to {MAX_ITEMS} operations.");
        return Err(Problem::new(400, "SyntaxError", message));
    };
    let numbered = (0_u32..).zip(listed);
    Ok(numbered
        .map(|(number, body)| item(request, public_url, keystore_url, number, body))
        .collect())
}

/// The name of the item at a place, from 0, of the batch with this name.
pub fn name_of_item(batch: &[u8; 32], place: u32) -> [u8; 32] {
    let mut name = Sha256::new();
    name.update(b"conclave item");
    name.update(batch);
    name.update(place.to_be_bytes());
    name.finalize().into()
}

fn item(
    request: &Authenticated,
    public_url: &str,
    keystore_url: &str,
    number: u32,
    body: &Value,
) -> Result<Item, Problem> {
    let wrong = |message: &str| Problem::new(400, "SyntaxError", message);
    let url = body
        .get("invocationTarget")
        .and_then(Value::as_str)
        .ok_or_else(|| wrong("\"invocationTarget\" must be the URL of a key."))?;
    let target = url
        .strip_prefix(keystore_url)
        .filter(|rest| rest.starts_with("/keys/"))
        .and_then(|_| url.strip_prefix(public_url))
        .ok_or_else(|| wrong("\"invocationTarget\" must be a key of this keystore."))?;
    let route = Route::parse("POST", target).filter(|route| matches!(route, Route::UseKey(..)));
    let route = route.ok_or_else(|| wrong("\"invocationTarget\" must be the URL of a key."))?;
    let action = match body.get("type").and_then(Value::as_str) {
        Some("SignOperation") => "sign",
        Some("DeriveSecretOperation") => "deriveSecret",
        Some("VerifyOperation") => "verify",
        Some("WrapKeyOperation") => "wrapKey",
        Some("UnwrapKeyOperation") => "unwrapKey",
        _ => return Err(wrong("An item of a batch is an operation on a key.")),
    };
    let authenticated = Authenticated {
        name: name_of_item(&request.name, number),
        request_target: target.to_owned(),
        action: action.to_owned(),
        body_json: Some(body.clone()),
        ..request.clone()
    };
    Ok(Item { authenticated, route })
}
