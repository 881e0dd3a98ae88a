// Meters and keystores: create, get, list, update, and what is refused.
import assert from 'node:assert/strict';
import test from 'node:test';
import {KmsClient} from '@digitalbazaar/webkms-client';
import {
  agent, at, ezcap, ID, identity, inMinutes, delegate, KEYSTORES, kms, newKeystore, newMeter, PUBLIC, refused, rootOf,
  WRONG_INVOKER
} from './world.mjs';

const alice = await identity('alice');
const bob = await identity('bob');

const create = (who, config) => KmsClient.createKeystore({
  url: KEYSTORES, config, invocationSigner: who.getSigner(), httpsAgent: agent()
});
const update = (who, config, id = config.id) =>
  kms(id).updateKeystore({config, invocationSigner: who.getSigner()});
const get = (who, id, capability) => kms(id).getKeystore({capability, invocationSigner: who.getSigner()});

test('a meter is created and read', async () => {
  const {meter, location, status, meterId} = await newMeter(alice);
  assert.equal(status, 201);
  assert.match(meter.id, ID);
  assert.equal(location, meterId);
  assert.equal(meter.controller, alice.id);
  assert.equal(meter.product.id, 'urn:uuid:80a82316-e8c2-11eb-9570-10bf48838a41');
  assert.equal(typeof meter.serviceId, 'string');
  assert.equal(meter.sequence, 0);
  const {data} = await ezcap(alice).read({url: meterId});
  for(const property of ['id', 'controller', 'product', 'sequence']) {
    assert.deepEqual(data.meter[property], meter[property]);
  }
});

test('a keystore is created, read and updated', async () => {
  const {meterId} = await newMeter(alice);
  const config = {sequence: 0, controller: alice.id, meterId, kmsModule: 'ssm-v1'};
  const {data, headers, status} = await ezcap(alice).write({url: KEYSTORES, json: config});
  assert.equal(status, 201);
  assert.equal(headers.get('location'), data.id);
  const {id, ...rest} = data;
  assert.deepEqual(rest, config);
  assert(id.startsWith(`${KEYSTORES}/`));
  assert.match(id.slice(KEYSTORES.length + 1), ID);
  for(const node of [0, 1, 2]) {
    assert.deepEqual(await at(node, () => get(alice, id)), data);
  }
  const second = {...data, sequence: 1, ipAllowList: ['127.0.0.1/32', '::1/128']};
  assert.deepEqual(await update(alice, second), {config: second});
  const third = {...data, sequence: 2};
  assert.deepEqual(await update(alice, third), {config: third});
  assert.deepEqual(await get(alice, id), third);
  // kmsModule is filled in.
  const {kmsModule: _, ...short} = {...data, sequence: 3};
  assert.deepEqual((await update(alice, short)).config, {...data, sequence: 3});
});

test('the npm client creates a keystore', async () => {
  const keystore = await newKeystore(alice);
  assert.equal(keystore.controller, alice.id);
  assert.equal(keystore.sequence, 0);
});

test('keystores are listed by controller', async () => {
  const lister = await identity('lister');
  const url = `${KEYSTORES}?controller=${encodeURIComponent(lister.id)}`;
  const list = who => ezcap(who).read({url, capability: rootOf(KEYSTORES)});
  assert.deepEqual((await list(lister)).data, {results: []});
  const first = await newKeystore(lister);
  const second = await newKeystore(lister);
  const {results} = (await list(lister)).data;
  const byId = (a, b) => a.id < b.id ? -1 : 1;
  assert.deepEqual(results.sort(byId), [first, second].sort(byId));
  await refused(list(bob), WRONG_INVOKER);
});

test('a keystore may have several controllers', async () => {
  const {meterId} = await newMeter(alice);
  const {data} = await ezcap(alice).write({
    url: KEYSTORES, json: {sequence: 0, controller: [alice.id, bob.id], meterId, kmsModule: 'ssm-v1'}
  });
  assert.deepEqual(data.controller, [alice.id, bob.id]);
  assert.deepEqual(await get(bob, data.id), data);
  const {config} = await update(bob, {...data, sequence: 1, controller: [bob.id]});
  assert.deepEqual(config.controller, [bob.id]);
  await refused(get(alice, data.id), WRONG_INVOKER);
  await refused(update(bob, {...data, sequence: 2, controller: []}), {status: 400, name: 'ValidationError'});
});

test('creating is refused', async () => {
  const {meterId} = await newMeter(alice);
  const config = {sequence: 0, controller: alice.id, meterId, kmsModule: 'ssm-v1'};
  const invalid = {
    status: 400, name: 'ValidationError',
    message: `A validation error occurred in the 'postKeystoreBody' validator.`
  };
  await refused(create(alice, {...config, sequence: 1}), {
    status: 400, name: 'DataError', message: 'Keystore config sequence must be "0".'
  });
  const {meterId: _, ...noMeter} = config;
  const body = await refused(create(alice, noMeter), invalid);
  assert.equal(body.details.errors[0].message, `should have required property 'meterId'`);
  const list = await refused(create(alice, {...config, ipAllowList: ['nope']}), invalid);
  assert.match(list.details.errors[0].message, /^should match pattern /);
  assert.equal(list.details.errors[0].details.path, '.ipAllowList[0]');
  const empty = await refused(create(alice, {...config, ipAllowList: []}), invalid);
  assert.equal(empty.details.errors[0].message, 'should NOT have fewer than 1 items');
  assert.equal(empty.details.errors[0].details.path, '.ipAllowList');
  await refused(create(alice, {...config, referenceId: 'urn:x'}), invalid);
  await refused(create(bob, config), WRONG_INVOKER);
});

test('updating is refused', async () => {
  const keystore = await newKeystore(alice);
  const body = await refused(update(alice, {...keystore, sequence: 9}), {status: 409, name: 'InvalidStateError'});
  assert.deepEqual(body.details, {id: keystore.id, sequence: 9, httpStatusCode: 409});
  await refused(update(alice, {...keystore, sequence: 1, kmsModule: 'other'}), {
    status: 409, name: 'InvalidStateError'
  });
  const other = `${KEYSTORES}/z19x7u6Lj7j11f1Y86nXMXRFJ`;
  const mismatch = await refused(update(alice, {...keystore, id: other, sequence: 1}, keystore.id), {
    status: 400, name: 'URLMismatchError', message: 'Configuration "id" does not match request URL.'
  });
  assert.equal(mismatch.details.expected, keystore.id);
  assert.equal(mismatch.details.actual, other);
  const {sequence: _, ...noSequence} = keystore;
  const schema = await refused(update(alice, noSequence), {
    status: 400, name: 'ValidationError',
    message: `A validation error occurred in the 'updateKeystoreConfigBody' validator.`
  });
  assert.equal(schema.details.errors[0].message, `should have required property 'sequence'`);
  await refused(update(bob, {...keystore, sequence: 1}), WRONG_INVOKER);
  assert.deepEqual(await get(alice, keystore.id), keystore);
});

test('reading is refused', async () => {
  const keystore = await newKeystore(alice);
  await refused(get(bob, keystore.id), WRONG_INVOKER);
  const missing = `${KEYSTORES}/z1AzZzZzZzZzZzZzZzZzZzZzZz`;
  let error;
  try {
    await get(alice, missing);
  } catch(e) {
    error = e;
  }
  assert.equal(error.status, 404);
  const body = error.cause.data;
  assert.equal(body.name, 'NotFoundError');
  assert.equal(body.message, 'Keystore configuration not found.');
  assert.equal(body.details.keystoreId, missing);
});

test('a keystore is read by delegation', async () => {
  const keystore = await newKeystore(alice);
  const capability = await delegate(alice, bob, {
    capability: rootOf(keystore.id), invocationTarget: keystore.id, allowedActions: ['read']
  });
  assert.deepEqual(await get(bob, undefined, capability), keystore);
  await refused(kms().updateKeystore({
    capability, config: {...keystore, sequence: 1}, invocationSigner: bob.getSigner()
  }), {
    status: 403, name: 'NotAllowedError',
    cause: 'Capability action "write" is not allowed by the capability; allowed actions are: "read"'
  });
  // Beside operations a delegation may live for 90 days at most.
  const long = await delegate(alice, bob, {
    capability: rootOf(keystore.id), invocationTarget: keystore.id, expires: inMinutes(100 * 24 * 60)
  });
  await refused(get(bob, undefined, long), {
    status: 403, name: 'NotAllowedError',
    cause: 'A delegated capability in the delegation chain has a time to live that is too long.'
  });
});

test('the IP allow list binds reads and uses', async () => {
  const keystore = await newKeystore(alice, {ipAllowList: ['8.8.8.8/32']});
  const denied = {status: 403, name: 'NotAllowedError', message: 'Permission denied. Source IP is not allowed.'};
  await refused(get(alice, keystore.id), denied);
  await refused(kms(keystore.id).generateKey({
    type: 'Ed25519VerificationKey2020', invocationSigner: alice.getSigner()
  }), denied);
  const url = `${KEYSTORES}?controller=${encodeURIComponent(alice.id)}`;
  await refused(ezcap(alice).read({url, capability: rootOf(KEYSTORES)}), {status: 403, name: 'NotAllowedError'});
  assert(PUBLIC.startsWith('https://'));
});
