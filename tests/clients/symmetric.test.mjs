// Symmetric keys: what one node computes another one agrees with, through the classes that applications use.
import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import test from 'node:test';
import {Hmac, Kek, KeystoreAgent} from '@digitalbazaar/webkms-client';
import {at, bytes, identity, kms, newKey, newKeystore, NOT_ALLOWED, refused, WRONG_INVOKER} from './world.mjs';

const alice = await identity('alice');
const bob = await identity('bob');
const keystore = await newKeystore(alice);

// Each of them over connections of its own, so that every call can go to another node.
const signer = who => ({invocationSigner: who.getSigner(), kmsClient: kms()});

test('an agent of a keystore makes both kinds of key', async () => {
  const keystoreAgent = new KeystoreAgent({
    keystoreId: keystore.id, capabilityAgent: alice, kmsClient: kms(keystore.id)
  });
  const hmac = await keystoreAgent.generateKey({type: 'hmac'});
  assert.equal(hmac.type, 'Sha256HmacKey2019');
  const kek = await keystoreAgent.generateKey({type: 'kek'});
  assert.equal(kek.type, 'AesKeyWrappingKey2019');
  const {keyDescription} = await newKey(alice, keystore, 'Sha256HmacKey2019');
  assert.deepEqual(Object.keys(keyDescription).sort(), ['@context', 'controller', 'id', 'type']);
});

test('tags are the same through every node, and verify there', async () => {
  const {keyId: id} = await newKey(alice, keystore, 'Sha256HmacKey2019');
  const seen = new Set();
  for(const size of [0, 1, 55, 56, 64, 1_000, 40_000]) {
    const data = new Uint8Array(crypto.randomBytes(size));
    const tags = [];
    for(const node of [0, 1, 2]) {
      tags.push(await at(node, () => kms().sign({keyId: id, data, invocationSigner: alice.getSigner()})));
    }
    assert.equal(tags[0].length, 32);
    assert.deepEqual(tags[1], tags[0]);
    assert.deepEqual(tags[2], tags[0]);
    seen.add(Buffer.from(tags[0]).toString('hex'));
    const hmac = new Hmac({id, type: 'Sha256HmacKey2019', ...signer(alice)});
    // The class's own cache would answer by itself, and never lets the process end.
    const useCache = false;
    assert.deepEqual(await hmac.sign({data, useCache}), tags[0]);
    assert.equal(await at(size % 3, () => hmac.verify({data, signature: tags[0], useCache})), true);
    const wrong = Uint8Array.from(tags[0]);
    wrong[size % 32] ^= 1;
    for(const signature of [wrong, tags[0].subarray(1), new Uint8Array()]) {
      const verified = await kms().verify({keyId: id, data, signature, invocationSigner: alice.getSigner()});
      assert.equal(verified, false);
    }
  }
  assert.equal(seen.size, 7);
  await refused(kms().sign({keyId: id, data: bytes('x'), invocationSigner: bob.getSigner()}), WRONG_INVOKER);
});

test('what is wrapped through one node is unwrapped through another', async () => {
  const {keyId: id} = await newKey(alice, keystore, 'AesKeyWrappingKey2019');
  const kek = () => new Kek({id, type: 'AesKeyWrappingKey2019', ...signer(alice)});
  for(const size of [16, 32, 40, 64, 256]) {
    const unwrappedKey = new Uint8Array(crypto.randomBytes(size));
    const wrappedKey = await at(size % 3, () => kek().wrapKey({unwrappedKey}));
    const wrapped = Buffer.from(wrappedKey, 'base64url');
    assert.equal(wrapped.length, size + 8);
    const unwrapped = await at((size + 1) % 3, () => kek().unwrapKey({wrappedKey}));
    assert.deepEqual(new Uint8Array(unwrapped), unwrappedKey);
    wrapped[size] ^= 1;
    assert.equal(await kek().unwrapKey({wrappedKey: wrapped.toString('base64url')}), null);
    assert.equal(await kek().unwrapKey({wrappedKey: wrapped.subarray(8).toString('base64url')}), null);
  }
  for(const size of [8, 13]) {
    await refused(kek().wrapKey({unwrappedKey: new Uint8Array(size)}), NOT_ALLOWED);
  }
});

test('a symmetric key does only what its type can', async () => {
  const {keyId: hmac} = await newKey(alice, keystore, 'Sha256HmacKey2019');
  const {keyId: kek} = await newKey(alice, keystore, 'AesKeyWrappingKey2019');
  const invocationSigner = alice.getSigner();
  await refused(kms().sign({keyId: kek, data: bytes('x'), invocationSigner}), NOT_ALLOWED);
  await refused(kms().wrapKey({kekId: hmac, unwrappedKey: new Uint8Array(32), invocationSigner}), NOT_ALLOWED);
});
