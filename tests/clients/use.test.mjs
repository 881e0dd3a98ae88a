// Using keys: signatures that verifiers which are not ours accept, secrets that the other side agrees with.
import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import test from 'node:test';
import {KeyAgreementKey} from '@digitalbazaar/webkms-client';
import * as Ed25519Multikey from '@digitalbazaar/ed25519-multikey';
import {decode, encode} from 'base58-universal';
import {at, bytes, identity, kms, newKey, newKeystore, refused, sign, WRONG_INVOKER} from './world.mjs';

const alice = await identity('alice');
const bob = await identity('bob');
const keystore = await newKeystore(alice);

const rawOf = ({publicKeyMultibase, publicKeyBase58}) =>
  publicKeyBase58 ? decode(publicKeyBase58) : decode(publicKeyMultibase.slice(1)).subarray(2);
const multibase = (header, raw) => `z${encode(Uint8Array.from([...header, ...raw]))}`;
const okp = (crv, raw) => crypto.createPublicKey({
  key: {kty: 'OKP', crv, x: Buffer.from(raw).toString('base64url')}, format: 'jwk'
});

for(const type of ['Ed25519VerificationKey2020', 'Ed25519VerificationKey2018', 'urn:webkms:multikey:Ed25519']) {
  test(`signatures of ${type} verify with the npm verifier and with node's`, async () => {
    const {keyId, keyDescription} = await newKey(alice, keystore, type);
    const raw = rawOf(keyDescription);
    const verifier = (await Ed25519Multikey.from({
      type: 'Multikey', id: 'urn:key', controller: alice.id, publicKeyMultibase: multibase([0xed, 1], raw)
    })).verifier();
    const messages = [bytes(''), bytes('hello webkms'), crypto.randomBytes(64), crypto.randomBytes(40_000)];
    for(const [turn, data] of messages.entries()) {
      const signature = await at(turn % 3, () => sign(alice, keyId, new Uint8Array(data)));
      assert.equal(signature.length, 64);
      assert(await verifier.verify({data, signature}));
      assert(crypto.verify(null, data, okp('Ed25519', raw), signature));
      assert(!await verifier.verify({data: bytes('another'), signature}));
    }
    await refused(sign(bob, keyId, bytes('x')), WRONG_INVOKER);
  });
}

for(const [type, described] of [
  ['X25519KeyAgreementKey2020', 'X25519KeyAgreementKey2020'], ['urn:webkms:multikey:X25519', 'Multikey']
]) {
  test(`secrets of ${type} are what the other side computes`, async () => {
    const {keyId, keyDescription} = await newKey(alice, keystore, type);
    const ours = okp('X25519', rawOf(keyDescription));
    for(let turn = 0; turn < 6; ++turn) {
      const other = crypto.generateKeyPairSync('x25519');
      const raw = Buffer.from(other.publicKey.export({format: 'jwk'}).x, 'base64url');
      const publicKey = {type: described, publicKeyMultibase: multibase([0xec, 1], raw)};
      if(turn % 2) {
        publicKey.id = 'urn:peer';
        publicKey.controller = 'did:ex:1';
        publicKey['@context'] = 'https://w3id.org/security/suites/x25519-2020/v1';
      }
      const secret = await at(turn % 3, () => new KeyAgreementKey({
        id: keyId, type: described, kmsClient: kms(), invocationSigner: alice.getSigner()
      }).deriveSecret({publicKey}));
      const expected = crypto.diffieHellman({privateKey: other.privateKey, publicKey: ours});
      assert.deepEqual(Buffer.from(secret), expected);
    }
    const derive = (who, publicKey) => kms().deriveSecret({keyId, publicKey, invocationSigner: who.getSigner()});
    const good = {type: described, publicKeyMultibase: multibase([0xec, 1], crypto.randomBytes(32))};
    await refused(derive(bob, good), WRONG_INVOKER);
    // The all-zero point has low order.
    await refused(derive(alice, {type: described, publicKeyMultibase: multibase([0xec, 1], new Uint8Array(32))}), {
      status: 403, name: 'NotAllowedError'
    });
    const wrongType = described === 'Multikey' ? 'X25519KeyAgreementKey2020' : 'Multikey';
    await refused(derive(alice, {...good, type: wrongType}), {status: 403, name: 'NotAllowedError'});
  });
}

test('a key does only what its type can', async () => {
  const signing = await newKey(alice, keystore, 'Ed25519VerificationKey2020');
  const agreement = await newKey(alice, keystore, 'X25519KeyAgreementKey2020');
  const unsupported = {status: 403, name: 'NotAllowedError', message: 'Authorization error.'};
  await refused(sign(alice, agreement.keyId, bytes('x')), unsupported);
  await refused(kms().deriveSecret({
    keyId: signing.keyId, publicKey: {type: 'X25519KeyAgreementKey2020', publicKeyMultibase: 'z6LSfoo'},
    invocationSigner: alice.getSigner()
  }), unsupported);
  await refused(kms().verify({
    keyId: signing.keyId, data: bytes('x'), signature: new Uint8Array(64), invocationSigner: alice.getSigner()
  }), unsupported);
  await refused(kms().wrapKey({
    kekId: signing.keyId, unwrappedKey: new Uint8Array(32), invocationSigner: alice.getSigner()
  }), unsupported);
});
