// Keys: all five types, aliases, restrictions, and reading them back.
import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import test from 'node:test';
import {AsymmetricKey, KeystoreAgent} from '@digitalbazaar/webkms-client';
import {decode} from 'base58-universal';
import {
  at, bytes, checkErrorBody, delegate, ezcap, ID, identity, kms, newKey, newKeystore, NOT_ALLOWED, PUBLIC, refused,
  rootOf, send, sign, WRONG_INVOKER
} from './world.mjs';

const alice = await identity('alice');
const bob = await identity('bob');
const keystore = await newKeystore(alice);

// type sent, type described, context, how its public key begins and its length in bytes
const TYPES = [
  ['Ed25519VerificationKey2020', 'Ed25519VerificationKey2020', 'https://w3id.org/security/suites/ed25519-2020/v1', 'z6Mk'],
  ['Ed25519VerificationKey2018', 'Ed25519VerificationKey2018', 'https://w3id.org/security/suites/ed25519-2018/v1'],
  ['urn:webkms:multikey:Ed25519', 'Multikey', 'https://w3id.org/security/multikey/v1', 'z6Mk'],
  ['X25519KeyAgreementKey2020', 'X25519KeyAgreementKey2020', 'https://w3id.org/security/suites/x25519-2020/v1', 'z6LS'],
  ['urn:webkms:multikey:X25519', 'Multikey', 'https://w3id.org/security/multikey/v1', 'z6LS']
];

for(const [type, described, context, prefix] of TYPES) {
  test(`a key of type ${type} is generated and read on every node`, async () => {
    const {data, headers, status} = await ezcap(alice).request({
      url: `${keystore.id}/keys`, capability: rootOf(keystore.id), method: 'post', action: 'generateKey',
      json: {type: 'GenerateKeyOperation', invocationTarget: {type}}
    });
    assert.equal(status, 200);
    const {keyId, keyDescription} = data;
    assert.deepEqual(Object.keys(data).sort(), ['keyDescription', 'keyId']);
    assert.equal(headers.get('location'), keyId);
    assert(keyId.startsWith(`${keystore.id}/keys/`));
    assert.match(keyId.slice(`${keystore.id}/keys/`.length), ID);
    const {publicKeyMultibase, publicKeyBase58, ...rest} = keyDescription;
    assert.deepEqual(rest, {'@context': context, id: keyId, type: described, controller: alice.id});
    if(prefix) {
      assert(publicKeyMultibase.startsWith(prefix));
      assert.equal(decode(publicKeyMultibase.slice(1)).length, 34);
      assert.equal(publicKeyBase58, undefined);
    } else {
      assert.equal(decode(publicKeyBase58).length, 32);
      assert.equal(publicKeyMultibase, undefined);
    }
    for(const node of [0, 1, 2]) {
      const answer = await at(node, () =>
        send({url: keyId, method: 'GET', headers: {accept: 'application/json'}}));
      assert.equal(answer.status, 200);
      assert.deepEqual(answer.json, keyDescription);
      assert.equal(answer.headers['access-control-allow-origin'], '*');
      assert.equal(answer.headers['content-type'], 'application/json; charset=utf-8');
      assert.equal(answer.headers['cache-control'], 'no-cache, no-store, must-revalidate');
    }
  });
}

test('the npm client generates keys and agents of them', async () => {
  const {keyId, keyDescription} = await newKey(alice, keystore, 'Ed25519VerificationKey2020');
  assert.equal(keyDescription.id, keyId);
  const keystoreAgent = new KeystoreAgent({
    capabilityAgent: alice, keystoreId: keystore.id, kmsClient: kms(keystore.id)
  });
  const key = await keystoreAgent.generateKey({type: 'asymmetric'});
  assert.equal(key.type, 'Ed25519VerificationKey2020');
  assert.equal(key.algorithm, 'Ed25519');
  assert.equal((await key.sign({data: bytes('data')})).length, 64);
  const agreement = await keystoreAgent.generateKey({type: 'keyAgreement'});
  assert.equal(agreement.type, 'X25519KeyAgreementKey2020');
});

test('a key description is read by a capability', async () => {
  const {keyId, keyDescription} = await newKey(alice, keystore, 'urn:webkms:multikey:Ed25519');
  const capability = await delegate(alice, bob, {capability: rootOf(keystore.id), invocationTarget: keyId});
  const key = await AsymmetricKey.fromCapability({
    capability, invocationSigner: bob.getSigner(), kmsClient: kms()
  });
  assert.deepEqual(await key.getKeyDescription(), keyDescription);
  // The peer's own test reads a key with the root capability of the key's URL: the GET is public.
  const description = await kms().getKeyDescription({
    capability: rootOf(keyId), invocationSigner: bob.getSigner(), useCache: false
  });
  assert.deepEqual(description, keyDescription);
});

test('an alias is what descriptions show', async () => {
  const alias = `did:web:example.com#${crypto.randomUUID()}`;
  const {keyId, keyDescription} =
    await newKey(alice, keystore, 'Ed25519VerificationKey2020', {publicAlias: alias});
  assert.equal(keyDescription.id, alias);
  assert.notEqual(keyId, alias);
  const read = await send({url: keyId, method: 'GET', headers: {accept: 'application/json'}});
  assert.deepEqual(read.json, keyDescription);
  const template = await newKey(alice, keystore, 'Ed25519VerificationKey2020', {
    publicAliasTemplate: 'did:key:{publicKeyMultibase}#{publicKeyMultibase}'
  });
  const multibase = template.keyDescription.publicKeyMultibase;
  assert.equal(template.keyDescription.id, `did:key:${multibase}#${multibase}`);
  assert.equal((await sign(alice, template.keyId, bytes('x'))).length, 64);
});

test('a key may limit the chain that uses it', async () => {
  const {keyId} = await newKey(alice, keystore, 'Ed25519VerificationKey2020', {maxCapabilityChainLength: 1});
  assert.equal((await sign(alice, keyId, bytes('x'))).length, 64);
  const capability = await delegate(alice, bob, {capability: rootOf(keystore.id), invocationTarget: keyId});
  await refused(sign(bob, keyId, bytes('x'), capability), {
    ...NOT_ALLOWED, cause: 'Maximum zcap invocation capability chain length (1) exceeded.'
  });
  const two = await newKey(alice, keystore, 'Ed25519VerificationKey2020', {maxCapabilityChainLength: 2});
  const one = await delegate(alice, bob, {capability: rootOf(keystore.id), invocationTarget: two.keyId});
  assert.equal((await sign(bob, two.keyId, bytes('x'), one)).length, 64);
});

test('generating is refused', async () => {
  await refused(newKey(alice, keystore, 'NoSuchType'), {...NOT_ALLOWED, cause: 'Unknown key type "NoSuchType".'});
  await refused(newKey(bob, keystore, 'Ed25519VerificationKey2020'), WRONG_INVOKER);
});

test('a missing key is told apart by the verb', async () => {
  const missing = `${keystore.id}/keys/z19wpfJnQnvERd8nN8ZBYAzzz`;
  const read = await send({url: missing, method: 'GET', headers: {accept: 'application/json'}});
  assert.equal(read.status, 404);
  checkErrorBody(read.json, {status: 404, name: 'NotFoundError', message: 'Key not found.'});
  assert.equal(read.json.details.key, missing);
  await refused(sign(alice, missing, bytes('x')), {...NOT_ALLOWED, causeName: 'NotFoundError', cause: 'Key not found.'});
});

test('HEAD, preflight and what does not exist', async () => {
  const {keyId} = await newKey(alice, keystore, 'Ed25519VerificationKey2020');
  const head = await send({url: keyId, method: 'HEAD', headers: {accept: 'application/json'}});
  assert.equal(head.status, 200);
  assert.equal(head.body, '');
  const preflight = await send({url: `${keystore.id}/keys`, method: 'OPTIONS', headers: {
    origin: 'https://example.com', 'access-control-request-method': 'POST',
    'access-control-request-headers': 'authorization,capability-invocation,content-type,digest'
  }});
  assert.equal(preflight.status, 204);
  assert.equal(preflight.headers['access-control-allow-headers'],
    'authorization,capability-invocation,content-type,digest');
  assert.equal(preflight.headers['access-control-max-age'], '86400');
  for(const [method, url] of [
    ['GET', `${keystore.id}/keys`], ['DELETE', keyId], ['PUT', keystore.id], ['GET', `${PUBLIC}/nothing`]
  ]) {
    assert.equal((await send({url, method, headers: {accept: 'application/json'}})).status, 404, `${method} ${url}`);
  }
});
