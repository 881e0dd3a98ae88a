//! Reads: configurations, meters and lists by ReadIndex; a key's description from this node's own state when it is
//! there, since a key's public part never changes.

use std::net::IpAddr;

use serde_json::{Map, Value, json};

use super::outside::{self, MAX_LIST};
use super::{Work, address_denied, admits, busy, confirm_group};
use crate::actors::decide::judge;
use crate::actors::parts::Parts;
use crate::actors::views::{GROUP_ZERO, Views, believed};
use crate::identifier::LocalId;
use crate::keystore::query;
use crate::keystore::record::Meter;
use crate::operation::description::{describe, key_url};
use crate::operation::judge::Intent;
use crate::operation::route::Named;
use crate::problem::Problem;
use crate::reply::Reply;

/// A keystore, a meter, or the keystores of a controller.
pub(super) async fn show(work: &Work) -> Result<Reply, Problem> {
    work.confirm().await?;
    let parts = &work.parts;
    let now = parts.now().map_err(|_| busy())?;
    let group = crate::actors::decide::group_of(parts, &work.request, &work.operation);
    let view = |group| parts.consensus.view(group).map_err(|_| busy());
    let views = Views {
        zero: view(GROUP_ZERO)?,
        own: view(group)?,
        denials: None,
    };
    let judgement = judge(parts, &work.request, views, work.operation, now)
        .await
        .map_err(|_| busy())??;
    let public_url = &parts.rules.public_url;
    match judgement.intent {
        Intent::ShowKeystore(id, record) => Ok(Reply::ok(record.config.to_json(public_url, &id))),
        Intent::ShowMeter(id, meter) => Ok(Reply::ok(
            json!({ "meter": meter_json(parts, &id, &meter, false) }),
        )),
        Intent::ListKeystores(controller) => list(work, &controller).await,
        _ => Err(Problem::malformed("This request shows nothing.")),
    }
}

async fn list(work: &Work, controller: &str) -> Result<Reply, Problem> {
    let parts = &work.parts;
    let mut found = Vec::new();
    let groups: Vec<_> = (1..parts.rules.groups).map(conclave_consensus::GroupId).collect();
    let in_group = |group: conclave_consensus::GroupId| async move {
        if parts.is_outside(group) {
            return outside::list(work, group, controller).await;
        }
        confirm_group(parts, group).await?;
        let view = parts.consensus.view(group).map_err(|_| busy())?;
        query::controlled_by(&view, controller, MAX_LIST).map_err(|_| busy())
    };
    let each = futures::future::try_join_all(groups.into_iter().map(in_group)).await?;
    found.extend(each.into_iter().flatten());
    found.sort_by_key(|(id, record)| (record.created, *id));
    found.truncate(MAX_LIST);
    if found.iter().any(|(_, record)| !work.caller.is_admitted(record)) {
        return Err(address_denied());
    }
    let results: Vec<Value> = found
        .iter()
        .map(|(id, record)| record.config.to_json(&parts.rules.public_url, id))
        .collect();
    Ok(Reply::ok(json!({ "results": results })))
}

/// A meter as clients see it; `service` is shown when it is created.
pub(super) fn meter_json(parts: &Parts, id: &LocalId, meter: &Meter, service: bool) -> Value {
    let mut json = Map::new();
    json.insert("controller".into(), meter.controller.clone().into());
    json.insert("product".into(), json!({ "id": meter.product }));
    json.insert("id".into(), id.to_string().into());
    if service {
        json.insert("serviceId".into(), parts.service_id.clone().into());
    }
    json.insert("sequence".into(), meter.sequence.into());
    Value::Object(json)
}

/// `GET …/keys/:key`, which needs no authorization; the allow list still applies.
///
/// # Errors
/// 404 once confirmed by a leader, 403 by the allow list, 503.
pub async fn describe_key(
    parts: &Parts,
    keystore: &Named,
    key: &Named,
    addresses: &[IpAddr],
) -> Result<Reply, Problem> {
    let url = format!(
        "{}/kms/keystores/{}/keys/{}",
        parts.rules.public_url, keystore.text, key.text
    );
    let keystore_url = format!("{}/kms/keystores/{}", parts.rules.public_url, keystore.text);
    let Some(keystore_id) = keystore.id else {
        return Err(Problem::keystore_not_found(&keystore_url));
    };
    let group = parts.group_of(&keystore_id);
    let mut last = Problem::key_not_found(&url);
    for confirmed in [false, true] {
        if confirmed {
            confirm_group(parts, group).await?;
        }
        let view = believed(parts, group)?;
        let Some(stored) = query::keystore(&view, &keystore_id).map_err(|_| busy())? else {
            last = Problem::keystore_not_found(&keystore_url);
            continue;
        };
        if !admits(&stored, addresses) {
            last = address_denied();
            continue;
        }
        let record = match key.id {
            Some(key_id) => query::key(&view, &keystore_id, &key_id)
                .map_err(|_| busy())?
                .map(|key| (key_id, key)),
            None => None,
        };
        match record {
            Some((key_id, record)) => {
                let url = key_url(&parts.rules.public_url, &keystore_id, &key_id);
                return Ok(Reply::ok(describe(&url, &record, &stored.config)?));
            }
            None => last = Problem::key_not_found(&url),
        }
    }
    Err(last)
}
