// Encrypted data vaults and encrypted objects by the packages that applications use; only the vault's storage is a stand-in,
// in memory. What is encrypted through one node is found and decrypted through another.
import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import test from 'node:test';
import {Cipher} from '@digitalbazaar/minimal-cipher';
import {EdvClientCore, Transport} from '@digitalbazaar/edv-client';
import {Hmac, KeyAgreementKey} from '@digitalbazaar/webkms-client';
import {at, delegate, identity, kms, newKey, newKeystore, nextSecond, rootOf} from './world.mjs';

const alice = await identity('alice');
const bob = await identity('bob');
const keystore = await newKeystore(alice);
const agreement = await newKey(alice, keystore, 'X25519KeyAgreementKey2020');
const indexing = await newKey(alice, keystore, 'Sha256HmacKey2019');

const keyResolver = async ({id}) => {
  assert.equal(id, agreement.keyId);
  return agreement.keyDescription;
};

// Each over connections of its own, so that every call can go to another node.
const agreementKey = () => new KeyAgreementKey({
  id: agreement.keyId, type: 'X25519KeyAgreementKey2020', kmsClient: kms(), invocationSigner: alice.getSigner()
});

// The class's own cache would answer by itself, and never lets the process end.
function withoutCache(hmac) {
  const {id, type} = hmac;
  return {
    id, type,
    sign: ({data}) => hmac.sign({data, useCache: false}),
    verify: ({data, signature}) => hmac.verify({data, signature, useCache: false})
  };
}

const hmac = () => withoutCache(new Hmac({
  id: indexing.keyId, type: 'Sha256HmacKey2019', kmsClient: kms(), invocationSigner: alice.getSigner()
}));

class Memory extends Transport {
  documents = new Map();

  async insert({encrypted}) {
    this.documents.set(encrypted.id, structuredClone(encrypted));
  }

  async update({encrypted}) {
    this.documents.set(encrypted.id, structuredClone(encrypted));
  }

  async get({id}) {
    return structuredClone(this.documents.get(id));
  }

  async find({query: {index, equals, has}}) {
    const entry = ({indexed}) => indexed.find(({hmac: {id}}) => id === index);
    const names = encrypted => new Map(entry(encrypted).attributes.map(({name, value}) => [name, value]));
    const matches = encrypted => {
      const found = names(encrypted);
      return equals ?
        equals.some(wanted => Object.entries(wanted).every(([name, value]) => found.get(name) === value)) :
        has.every(name => found.has(name));
    };
    return {documents: structuredClone([...this.documents.values()].filter(matches))};
  }
}

test('an object that was encrypted to a key is decrypted through every node', async () => {
  const cipher = new Cipher({version: 'recommended'});
  const recipients = [{header: {kid: agreement.keyId, alg: 'ECDH-ES+A256KW'}}];
  const obj = {secret: crypto.randomBytes(16).toString('hex')};
  const jwe = await cipher.encryptObject({obj, recipients, keyResolver});
  assert(!JSON.stringify(jwe).includes(obj.secret));
  for(const node of [0, 1, 2]) {
    await nextSecond();
    const opened = await at(node, () => cipher.decryptObject({jwe, keyAgreementKey: agreementKey()}));
    assert.deepEqual(opened, obj);
  }
  await nextSecond();
  jwe.tag = Buffer.from(jwe.tag, 'base64url').fill(0).toString('base64url');
  await assert.rejects(cipher.decryptObject({jwe, keyAgreementKey: agreementKey()}), /unable to authenticate/);
});

test('a vault finds by a blinded index and decrypts through another node than the one it was filled through', async () => {
  const transport = new Memory();
  // A client of its own for each call: nothing that one has cached helps another.
  const vault = () => {
    const client = new EdvClientCore({
      id: 'urn:vault', hmac: hmac(), keyAgreementKey: agreementKey(), keyResolver
    });
    client.ensureIndex({attribute: 'content.colour'});
    client.ensureIndex({attribute: ['content.colour', 'content.shape']});
    return client;
  };
  const contents = [
    {colour: 'red', shape: 'round'}, {colour: 'red', shape: 'square'}, {colour: 'blue', shape: 'round'}
  ];
  for(const [node, content] of contents.entries()) {
    await at(node, () => vault().insert({doc: {content}, transport}));
  }
  const stored = JSON.stringify([...transport.documents.values()]);
  for(const word of ['red', 'blue', 'round', 'square', 'colour']) {
    assert(!stored.includes(`"${word}"`), `${word} is in the vault's storage`);
  }
  const find = (node, query) => at(node, async () => {
    await nextSecond();
    const {documents} = await vault().find({...query, transport});
    return documents.map(({content}) => content);
  });
  assert.deepEqual(await find(1, {equals: {'content.colour': 'red'}}), contents.slice(0, 2));
  assert.deepEqual(await find(2, {equals: {'content.colour': 'blue'}}), contents.slice(2));
  assert.deepEqual(
    await find(0, {equals: {'content.colour': 'red', 'content.shape': 'square'}}), contents.slice(1, 2));
  assert.deepEqual(await find(1, {equals: {'content.colour': 'green'}}), []);
  assert.equal((await find(2, {has: ['content.colour']})).length, 3);

  const [id] = transport.documents.keys();
  await nextSecond();
  const doc = await at(2, () => vault().get({id, transport}));
  assert.deepEqual(doc.content, contents[0]);
  doc.content = {colour: 'green', shape: 'round'};
  await at(0, () => vault().update({doc, transport}));
  assert.deepEqual(await find(1, {equals: {'content.colour': 'green'}}), [doc.content]);
  assert.deepEqual(await find(1, {equals: {'content.colour': 'red'}}), contents.slice(1, 2));
});

test('a delegate opens what a vault holds, by capabilities for its keys', async () => {
  const cipher = new Cipher({version: 'recommended'});
  const recipients = [{header: {kid: agreement.keyId, alg: 'ECDH-ES+A256KW'}}];
  const jwe = await cipher.encryptObject({obj: {for: 'bob'}, recipients, keyResolver});
  const capability = await delegate(alice, bob, {
    capability: rootOf(keystore.id), invocationTarget: agreement.keyId, allowedActions: ['deriveSecret']
  });
  const keyAgreementKey = await KeyAgreementKey.fromCapability({
    capability, kmsClient: kms(), invocationSigner: bob.getSigner()
  });
  assert.deepEqual(await cipher.decryptObject({jwe, keyAgreementKey}), {for: 'bob'});
});
