// Capabilities: delegated to depth 3, attenuated, refused, revoked on every node at once, and a keystore that
// changes hands.
import assert from 'node:assert/strict';
import test from 'node:test';
import {
  at, bytes, delegate, ezcap, identity, inMinutes, kms, newKey, newKeystore, NOT_ALLOWED, refused, REVOKED, rootOf,
  sign, WRONG_INVOKER
} from './world.mjs';

const [alice, bob, carol, dave] = await Promise.all(['alice', 'bob', 'carol', 'dave'].map(identity));
const keystore = await newKeystore(alice);
const {keyId} = await newKey(alice, keystore, 'Ed25519VerificationKey2020');
const root = {capability: rootOf(keystore.id), invocationTarget: keyId};
const data = bytes('data');

const revoke = (who, capabilityToRevoke, node) => at(node, () =>
  kms(keystore.id).revokeCapability({capabilityToRevoke, invocationSigner: who.getSigner()}));

test('a key is signed with through one, two and three delegations, on every node', async () => {
  const first = await delegate(alice, bob, {...root, allowedActions: ['sign', 'read']});
  const second = await delegate(bob, carol, {capability: first, allowedActions: ['sign']});
  const third = await delegate(carol, dave, {capability: second});
  for(const [who, capability] of [[bob, first], [carol, second], [dave, third]]) {
    for(const node of [0, 1, 2]) {
      assert.equal((await at(node, () => sign(who, keyId, data, capability))).length, 64);
    }
    await refused(sign(alice, keyId, data, capability), WRONG_INVOKER);
  }
});

test('a keystore is used through a delegation of it', async () => {
  const capability = await delegate(alice, bob, {
    capability: rootOf(keystore.id), invocationTarget: `${keystore.id}/keys`, allowedActions: ['generateKey']
  });
  const made = await kms().generateKey({
    type: 'Ed25519VerificationKey2020', capability, invocationSigner: bob.getSigner()
  });
  assert(made.keyId.startsWith(`${keystore.id}/keys/`));
  // Target attenuation: a delegation of the keystore is good for its keys.
  const whole = await delegate(alice, bob, {capability: rootOf(keystore.id), invocationTarget: keystore.id});
  const {data: body} = await ezcap(bob).request({
    url: made.keyId, capability: whole, method: 'post', action: 'sign',
    json: {type: 'SignOperation', invocationTarget: made.keyId, verifyData: 'aGk'}
  });
  assert.equal(Buffer.from(body.signatureValue, 'base64url').length, 64);
});

test('what a capability does not allow is refused', async () => {
  const read = await delegate(alice, bob, {...root, allowedActions: ['read']});
  await refused(sign(bob, keyId, data, read), {
    ...NOT_ALLOWED, cause: 'Capability action "sign" is not allowed by the capability; allowed actions are: "read"'
  });
  // Expired for longer than the skew of 300 s. (Its delegation is older still.)
  const expired = await delegate(alice, bob, {...root, now: Date.now() - 1_200_000, expires: inMinutes(-10)});
  await refused(sign(bob, keyId, data, expired), {...NOT_ALLOWED, cause: 'The invoked capability has expired.'});
  // Whoever is no controller delegates in vain.
  const stolen = await delegate(bob, carol, root);
  await refused(sign(carol, keyId, data, stolen), NOT_ALLOWED);
  const good = await delegate(alice, bob, {...root, allowedActions: ['sign']});
  const tampered = {...good, controller: carol.id};
  await refused(sign(carol, keyId, data, tampered), {
    ...NOT_ALLOWED, causeName: 'VerificationError', cause: 'Verification error(s).'
  });
  await refused(sign(bob, keyId, data, {...good, more: 'x'}), NOT_ALLOWED);
  // Another key is not its target.
  const other = await newKey(alice, keystore, 'Ed25519VerificationKey2020');
  await refused(ezcap(bob).request({
    url: other.keyId, capability: {...good, invocationTarget: other.keyId}, method: 'post', action: 'sign',
    json: {type: 'SignOperation', invocationTarget: other.keyId, verifyData: 'aGk'}
  }), NOT_ALLOWED);
});

test('operations take delegations of fifty years', async () => {
  const capability = await delegate(alice, bob, {...root, expires: inMinutes(50 * 365 * 24 * 60)});
  assert.equal((await sign(bob, keyId, data, capability)).length, 64);
});

test('a revocation binds every node at once', async () => {
  for(let turn = 0; turn < 6; ++turn) {
    const first = await delegate(alice, bob, root);
    const second = await delegate(bob, carol, {capability: first});
    await at((turn + 1) % 3, () => sign(carol, keyId, data, second));
    assert.equal(await revoke(alice, first, turn % 3), undefined);
    for(const node of [(turn + 1) % 3, (turn + 2) % 3, turn % 3]) {
      await refused(at(node, () => sign(bob, keyId, data, first)), REVOKED);
      await refused(at(node, () => sign(carol, keyId, data, second)), REVOKED);
    }
  }
});

test('whoever is in the chain may revoke, and nobody twice or from outside', async () => {
  const first = await delegate(alice, bob, root);
  const second = await delegate(bob, carol, {capability: first});
  await refused(revoke(dave, second, 0), WRONG_INVOKER);
  await revoke(carol, second, 1);
  await refused(at(2, () => sign(carol, keyId, data, second)), REVOKED);
  assert.equal((await at(2, () => sign(bob, keyId, data, first))).length, 64);
  for(const node of [0, 1, 2]) {
    await refused(revoke(alice, second, node), {
      ...NOT_ALLOWED, causeName: 'DataError', cause: 'The provided capability delegation is invalid.'
    });
  }
  await revoke(bob, first, 0);
  await refused(at(1, () => sign(bob, keyId, data, first)), REVOKED);
  const invalid = {...second, proof: undefined};
  await refused(kms(keystore.id).revokeCapability({
    capabilityToRevoke: JSON.parse(JSON.stringify(invalid)), invocationSigner: alice.getSigner()
  }), {status: 400, name: 'ValidationError', message: `A validation error occurred in the 'delegatedZcap' validator.`});
});

test('a controller change binds every node at once', async () => {
  for(let turn = 0; turn < 3; ++turn) {
    const own = await newKeystore(alice);
    const key = await newKey(alice, own, 'Ed25519VerificationKey2020');
    const capability = await delegate(alice, carol, {capability: rootOf(own.id), invocationTarget: key.keyId});
    assert.equal((await sign(carol, key.keyId, data, capability)).length, 64);
    const {config} = await at(turn, () => kms(own.id).updateKeystore({
      config: {...own, sequence: 1, controller: bob.id}, invocationSigner: alice.getSigner()
    }));
    assert.equal(config.controller, bob.id);
    for(const node of [(turn + 1) % 3, (turn + 2) % 3, turn]) {
      await at(node, async () => {
        await refused(sign(alice, key.keyId, data), WRONG_INVOKER);
        // What the old controller delegated went with it.
        await refused(sign(carol, key.keyId, data, capability), NOT_ALLOWED);
        assert.equal((await sign(bob, key.keyId, data)).length, 64);
        const description = await kms().getKeyDescription({
          capability: rootOf(key.keyId), invocationSigner: bob.getSigner(), useCache: false
        });
        assert.equal(description.controller, bob.id);
      });
    }
  }
});
