// Requests as bytes: what the signature must cover, twins, replays, sizes.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import test from 'node:test';
import {
  at, bytes, checkErrorBody, counts, identity, inOneSecond, kms, newKey, newKeystore, NOT_ALLOWED, pause, PUBLIC,
  refused, send, sendBytes, sign, signed, wire
} from './world.mjs';

const alice = await identity('alice');
const keystore = await newKeystore(alice);
const {keyId} = await newKey(alice, keystore, 'Ed25519VerificationKey2020');
const agreement = await newKey(alice, keystore, 'X25519KeyAgreementKey2020');
const operation = verifyData => ({type: 'SignOperation', invocationTarget: keyId, verifyData});
const signRequest = (more = {}) =>
  signed({who: alice, url: keyId, action: 'sign', json: operation('aGVsbG8'), ...more});
const now = () => Math.floor(Date.now() / 1000);

async function refusedBytes(request, expected) {
  const answer = await send(request);
  assert.equal(answer.status, expected.status, answer.body);
  checkErrorBody(answer.json, expected);
}

test('a request is authorized by its signature or not at all', async () => {
  const good = await signRequest();
  assert.equal((await send(good)).status, 200);
  const without = name => {
    const headers = {...good.headers};
    delete headers[name];
    return {...good, headers};
  };
  const cause = (text, causeName) => ({...NOT_ALLOWED, cause: text, causeName});
  await refusedBytes(without('authorization'), cause('Missing or invalid "authorization" header.', 'DataError'));
  await refusedBytes(without('digest'),
    cause('A "digest" header must be present when an HTTP body is present.', 'DataError'));
  await refusedBytes({...good, body: JSON.stringify(operation('aGVsbG9v'))},
    cause('The "digest" header value does not match digest of body.', 'DataError'));
  await refusedBytes(await signRequest({created: now() - 1200, expires: now() - 600}),
    cause('The signature has expired.', 'ConstraintError'));
  await refusedBytes(await signRequest({created: now() + 600, expires: now() + 1200}),
    cause('Invalid signature; the signature creation time is in the future.', 'ConstraintError'));
  assert.equal((await send(await signRequest({created: now() + 200, expires: now() + 800}))).status, 200);
  const other = await signRequest({json: operation('b3RoZXI')});
  const signature = /signature="[^"]*"/;
  await refusedBytes({...good, headers: {
    ...good.headers,
    authorization: good.headers.authorization.replace(signature, other.headers.authorization.match(signature)[0])
  }}, cause('Signature not verified.', 'DataError'));
  await refusedBytes(await signRequest({action: 'verify'}),
    cause('Capability action "verify" does not match the expected action of "sign".'));
});

test('a request is for this cluster and this URL', async () => {
  const good = await signRequest();
  const foreign = await send({...good, headers: {...good.headers, host: 'evil.example:1'}});
  assert.equal(foreign.status, 400, foreign.body);
  const target = await send(await signRequest({
    json: {...operation('aGVsbG8'), invocationTarget: `${keyId}x`}
  }));
  assert.equal(target.status, 400, target.body);
});

test('an operation that is not one is 400 with a reason', async () => {
  for(const json of [
    {type: 'SignOperation', invocationTarget: keyId},
    {...operation('aGVsbG8'), extra: 1},
    {...operation('!!!not base64url')},
    {...operation('aGVsbG8'), '@context': 'https://example.com/other'}
  ]) {
    const answer = await send(await signRequest({json}));
    assert.equal(answer.status, 400, `${JSON.stringify(json)} ${answer.body}`);
    assert(answer.json.message.length > 0);
  }
  const context = await send(await signRequest({
    json: {'@context': 'https://w3id.org/webkms/v1', ...operation('aGVsbG8')}
  }));
  assert.equal(context.status, 200, context.body);
  for(const type of ['DeleteKeyOperation', 'ExportKeyOperation']) {
    const action = type[0].toLowerCase() + type.slice(1).replace('Operation', '');
    const answer = await send(await signRequest({action, json: {type, invocationTarget: keyId}}));
    assert.equal(answer.status, 403, answer.body);
  }
});

test('a body of more than 100 kB is too large', async () => {
  const answer = await send(await signRequest({json: operation('A'.repeat(101 * 1024))}));
  assert.equal(answer.status, 413, answer.body);
  checkErrorBody(answer.json, {status: 413, name: 'QuotaExceededError', message: 'Content is too large.'});
});

test('twins: two identical calls in one second are two', async () => {
  const signer = alice.getSigner();
  const signatures = await inOneSecond(() => Promise.all([1, 2].map(() => sign(alice, keyId, bytes('twin')))));
  for(const signature of signatures) {
    assert.equal(signature.length, 64);
  }
  const keys = await inOneSecond(() => Promise.all([1, 2].map(() =>
    newKey(alice, keystore, 'Ed25519VerificationKey2020'))));
  assert.notEqual(keys[0].keyId, keys[1].keyId);
  for(const key of keys) {
    assert.equal((await sign(alice, key.keyId, bytes('x'))).length, 64);
  }
  // A secret's twin is served by the coordinator of the first.
  const publicKey = {type: 'X25519KeyAgreementKey2020',
    publicKeyMultibase: (await newKey(alice, keystore, 'X25519KeyAgreementKey2020')).keyDescription.publicKeyMultibase};
  const secrets = await at(1, () => inOneSecond(() => Promise.all([1, 2].map(() =>
    kms().deriveSecret({keyId: agreement.keyId, publicKey, invocationSigner: signer})))));
  assert.deepEqual(secrets[0], secrets[1]);
});

test('the same bytes later are refused through every node', async () => {
  const peer = (await newKey(alice, keystore, 'X25519KeyAgreementKey2020')).keyDescription.publicKeyMultibase;
  const captured = [
    await signRequest({json: operation('Y2FwdHVyZWQ')}),
    await signed({who: alice, url: agreement.keyId, action: 'deriveSecret', json: {
      type: 'DeriveSecretOperation', invocationTarget: agreement.keyId,
      publicKey: {type: 'X25519KeyAgreementKey2020', publicKeyMultibase: peer}
    }}),
    await signed({who: alice, url: `${keystore.id}/keys`, action: 'generateKey', json: {
      type: 'GenerateKeyOperation', invocationTarget: {type: 'Ed25519VerificationKey2020'}
    }})
  ].map(wire);
  for(const request of captured) {
    const answer = await at(0, () => sendBytes(request));
    assert.equal(answer.status, 200, answer.body);
  }
  // Past the two seconds in which they would be twins.
  await pause(2_500);
  for(const request of captured) {
    for(const node of [0, 1, 2]) {
      const answer = await at(node, () => sendBytes(request));
      assert.equal(answer.status, 409, answer.body);
      assert.equal(answer.json.details.httpStatusCode, 409);
    }
  }
  // The test that runs this one sends them again when every node was killed and restarted.
  if(process.env.CONCLAVE_CAPTURED) {
    captured.forEach((request, index) =>
      fs.writeFileSync(path.join(process.env.CONCLAVE_CAPTURED, `${index}.request`), request));
  }
});

test('the sequence rule refuses an update that comes again', async () => {
  const own = await newKeystore(alice);
  const request = wire(await signed({
    who: alice, url: own.id, action: 'write', capability: `urn:zcap:root:${encodeURIComponent(own.id)}`,
    json: {...own, sequence: 1}
  }));
  assert.equal((await sendBytes(request)).status, 200);
  assert.equal((await sendBytes(request)).status, 409);
});

test('every call of a client reached the next node', async () => {
  const before = await counts();
  for(let call = 0; call < 9; ++call) {
    await sign(alice, keyId, bytes(`call ${call}`));
  }
  const after = await counts();
  assert.equal(after.length, 3);
  assert.deepEqual(after.map((count, node) => count - before[node]), [3, 3, 3]);
  await refused(kms().sign({keyId, data: bytes('x'), invocationSigner: (await identity('x')).getSigner()}), NOT_ALLOWED);
  assert(PUBLIC.startsWith('https://'));
});
